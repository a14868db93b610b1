"""Concepts and circuits: interventions, attribution graphs, and indexes of what hidden units stand for."""
