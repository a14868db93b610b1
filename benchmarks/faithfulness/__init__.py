"""The leaderboard of faithfulness: composites and other methods on trained networks."""
