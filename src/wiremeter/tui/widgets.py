"""The table of the interactive view."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widget import Widget

from wiremeter.tui.table import Rows, column_at

_CURSOR = "on #303a44"


class Table(Widget, can_focus=True):
    """Lines below a header. The cursor appears when it is first moved, and stays on its row."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", show=False),
        Binding("down", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home", "jump(0)", show=False),
        Binding("end", "jump(-1)", show=False),
    ]

    class Moved(Message):
        """The cursor is on another row, or gone."""

    class SortAsked(Message):
        """A header was clicked."""

        def __init__(self, key: str) -> None:
            super().__init__()
            self.key = key

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self.rows: Rows | None = None
        self.cursor: int | None = None
        self._pinned: tuple[object, ...] | None = None
        self._offset = 0

    def show(self, rows: Rows) -> None:
        """Replace all lines."""
        was_in_view = self.cursor is not None and 0 <= self.cursor - self._offset < self._room
        self.rows = rows
        if self._pinned is not None:
            self.cursor = next((i for i in range(len(rows)) if rows.identity(i) == self._pinned), None)
        if was_in_view:
            self._scroll_into_view()
        else:
            self._scroll(0)
        self.refresh()

    def drop_cursor(self) -> bool:
        """Take the cursor away; whether there was one."""
        had = self._pinned is not None
        self.cursor = self._pinned = None
        self._offset = 0
        self.refresh()
        self.post_message(self.Moved())
        return had

    def render(self) -> Text:
        if self.rows is None:
            return Text("")
        lines = [self.rows.header()]
        for index in range(self._offset, min(self._offset + self._room, len(self.rows))):
            line = self.rows.line(index)
            if index == self.cursor:
                line.stylize(_CURSOR)
            lines.append(line)
        return Text("\n").join(lines)

    @property
    def _room(self) -> int:
        return max(1, self.size.height - 1)

    def _scroll_into_view(self) -> None:
        count = len(self.rows) if self.rows else 0
        if self.cursor is not None:
            self._offset = min(max(self._offset, self.cursor - self._room + 1), self.cursor)
        self._offset = max(0, min(self._offset, count - self._room))

    def _put_cursor(self, index: int) -> None:
        if not self.rows:
            return
        self.cursor = min(max(index, 0), len(self.rows) - 1)
        self._pinned = self.rows.identity(self.cursor)
        self._scroll_into_view()
        self.refresh()
        self.post_message(self.Moved())

    def action_move(self, by: int) -> None:
        before_first = self._offset - (1 if by > 0 else -1)
        self._put_cursor((before_first if self.cursor is None else self.cursor) + by)

    def action_jump(self, index: int) -> None:
        if self.rows:
            self._put_cursor(index % len(self.rows))

    def action_page(self, by: int) -> None:
        self.action_move(by * self._room)

    def on_resize(self) -> None:
        self._scroll_into_view()

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        self._scroll(3)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        self._scroll(-3)

    def _scroll(self, by: int) -> None:
        count = len(self.rows) if self.rows else 0
        self._offset = max(0, min(self._offset + by, count - self._room))
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        if self.rows is None:
            return
        if event.y == 0:
            column = column_at(self.rows.columns, event.x)
            if column and column.sort:
                self.post_message(self.SortAsked(column.sort))
        elif self._offset + event.y - 1 < len(self.rows):
            self._put_cursor(self._offset + event.y - 1)
