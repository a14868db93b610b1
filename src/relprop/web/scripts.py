"""The page's own scripts. They are short: a rectangle, a file, a link."""

from __future__ import annotations

from html import escape

from relprop.rendering import html

RECTANGLE = """
let start = null, box = null, stage = null;
const place = (event) => {
  const around = stage.querySelector('figure > svg').getBoundingClientRect();
  const within = (value) => Math.min(1, Math.max(0, value));
  return [within((event.clientX - around.left) / around.width), within((event.clientY - around.top) / around.height)];
};
element.addEventListener('pointerdown', (event) => {
  stage = event.target.closest('.stage');
  if (!stage || !event.target.closest('figure > svg') || event.button) return;
  event.preventDefault();
  element.querySelectorAll('.marked').forEach((old) => old.remove());
  start = place(event);
  box = document.createElement('div');
  box.className = 'marked';
  stage.appendChild(box);
  element.setPointerCapture(event.pointerId);
});
const drawn = (event) => {
  const end = place(event), svg = stage.querySelector('figure > svg');
  const found = [Math.min(start[0], end[0]), Math.min(start[1], end[1]), Math.max(start[0], end[0]), Math.max(start[1], end[1])];
  box.style.left = svg.parentElement.offsetLeft + found[0] * svg.clientWidth + 'px';
  box.style.top = svg.parentElement.offsetTop + found[1] * svg.clientHeight + 'px';
  box.style.width = (found[2] - found[0]) * svg.clientWidth + 'px';
  box.style.height = (found[3] - found[1]) * svg.clientHeight + 'px';
  return found;
};
element.addEventListener('pointermove', (event) => { if (start) drawn(event); });
element.addEventListener('pointerup', (event) => {
  if (!start) return;
  const found = drawn(event);
  start = null;
  if (found[2] - found[0] > 0.005 && found[3] - found[1] > 0.005) trigger('select', {box: found});
});
element.addEventListener('pointercancel', () => { start = null; });
"""
"""A rectangle that is drawn on a map. Its corners are told as parts of the map's sides."""

CHOOSE = """
element.addEventListener('click', (event) => {
  const chosen = event.target.closest('[data-n]');
  if (chosen && element.contains(chosen)) trigger('select', {n: Number(chosen.dataset.n)});
});
"""
"""A button with a number, in HTML of ours, was pressed."""

SAVE = """
(file) => {
  if (!file || !file.data) return;
  const bytes = Uint8Array.from(atob(file.data), (letter) => letter.charCodeAt(0));
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([bytes], {type: file.type}));
  link.download = file.name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
"""
"""Saves a file that the server sent."""

LINK = """
(query) => {
  const link = new URL(query || '', window.location.href.split('?')[0]).href;
  try { window.history.replaceState(null, '', link); } catch (error) { /* a page inside of another */ }
  return link;
}
"""
"""The whole link of settings, which also becomes the page's address."""

COPY = """
(html) => {
  const shown = new DOMParser().parseFromString(html || '', 'text/html').querySelector('pre');
  if (shown && navigator.clipboard) navigator.clipboard.writeText(shown.textContent);
}
"""
"""Copies the code that is shown."""

ADDRESS = "() => window.location.href.split('#')[0]"
"""The page's address, with the settings that it holds."""

STYLE = """
.relprop .stage { position: relative; touch-action: none; }
.relprop .stage figure > svg { cursor: crosshair; user-select: none; }
.relprop .marked { position: absolute; border: 2px solid #141414; outline: 2px solid #fff; pointer-events: none; }
.relprop .examples { display: flex; flex-wrap: wrap; gap: .5rem; }
.relprop .examples button { border: 1px solid var(--line); border-radius: 6px; background: #fff; color: #141414;
  padding: .35rem; cursor: pointer; font: inherit; font-size: .85rem; max-width: 100%; text-align: left; }
.relprop .examples img { display: block; width: 5.5rem; height: 5.5rem; object-fit: cover; border-radius: 4px; }
.relprop button:focus-visible, .relprop [data-n]:focus-visible { outline: 3px solid #1b5e9b; outline-offset: 1px; }
.relprop .hint { color: #5f5f5f; }
.relprop .failed { border-left: 4px solid #a32020; padding-left: .6rem; }
.relprop { padding: .75rem; border-radius: 8px; }
.relprop th { font-weight: 600; }
.relprop .maps { display: grid; grid-template-columns: repeat(auto-fill, minmax(7.75rem, 1fr)); }
.relprop .maps button { overflow-wrap: anywhere; }
.relprop .maps img { width: 7rem; height: auto; max-width: 100%; margin-bottom: .25rem; }
.relprop .rows { max-height: 22rem; overflow-y: auto; }
.relprop .rows td, .relprop .rows th { padding: .1rem .6rem; }
.relprop pre.code { overflow: auto; max-height: 26rem; margin: 0; font: .85rem/1.45 ui-monospace, monospace; color: #141414; }
.relprop .rows button { border: 1px solid var(--line); border-radius: 6px; background: #fff; color: #141414; font: inherit;
  min-width: 3rem; padding: .1rem .5rem; cursor: pointer; }
"""
"""What our HTML needs on this page beyond the style of our pages."""


def styled(body: str) -> str:
    """Our HTML with its style, as the value of a field."""
    reached = body.replace(
        '<div class="scroll">', '<div class="scroll" tabindex="0">'
    )  # by the keyboard, to be scrolled
    return html.fragment(f"<style>{STYLE}</style>{reached}")


def failed(line: str) -> str:
    """Why there is no answer, a line that is safe as HTML, as the value of a field."""
    return styled(f'<p class="failed">{line}</p>')


def code(text: str) -> str:
    """Code as HTML that shows it as it stands, and that the keyboard scrolls."""
    return styled(f'<pre class="code" tabindex="0" aria-label="Code">{escape(text)}</pre>')
