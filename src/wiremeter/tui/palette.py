"""Colours of the interactive view; each says one thing."""

RX = "#5fd7af"
TX = "#ffaf5f"
GOOD = "#87d787"
FAULT = "bold #ffffff on #af0000"
WARNING = "bold #ffd75f"
NOTE = "#d7af5f"
HEADER = "bold #9e9e9e"
TITLE = "bold #ffffff on #005f87"
TITLE_SOFT = "#d0e4ee on #005f87"
LOUD = "bold #000000 on #ffd75f"
PLAIN = "#d0d0d0"
STRONG = "bold #ffffff"
FAINT = "#808080"
BAR = "#5f87af"

DIRECTION = {"rx": RX, "tx": TX}
HISTORY = {"rx": "#4a9e84", "tx": "#bf8440"}
# Larger orders of magnitude are brighter, so the large numbers of a column are found without reading it.
_BY_PREFIX = {"": FAINT, "k": PLAIN, "M": "#ffffff"}


def of_number(cell: str) -> str:
    """The colour of a number as units.cell writes it."""
    return _BY_PREFIX.get(cell[-1:].strip(), STRONG)
