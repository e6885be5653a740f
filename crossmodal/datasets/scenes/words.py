"""The vocabulary of scenes; the first word of each meaning is the plainest."""

from crossmodal.datasets.scenes.world import Place, Relation

SHAPES: dict[str, tuple[str, ...]] = {
    "circle": ("circle", "disc", "disk", "ball", "dot"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "ring": ("ring", "donut", "doughnut"),
    "cross": ("cross", "plus"),
    "heart": ("heart",),
    "diamond": ("diamond", "rhombus"),
    "rectangle": ("rectangle",),
    "oval": ("oval", "ellipse"),
}
ANY_SHAPE = ("shape", "figure", "thing")
COLORS: dict[str, tuple[str, ...]] = {
    "red": ("red", "crimson", "scarlet", "dark red"),
    "orange": ("orange", "dark orange"),
    "yellow": ("yellow", "golden", "gold"),
    "green": ("green", "emerald", "dark green"),
    "cyan": ("cyan", "turquoise", "aqua", "light blue", "sky blue"),
    "blue": ("blue", "azure"),
    "purple": ("purple", "violet", "dark purple"),
    "pink": ("pink", "rose", "light pink"),
    "brown": ("brown", "chocolate", "dark brown"),
    "magenta": ("magenta", "fuchsia", "hot pink"),
    "lime": ("lime", "lime green", "light green"),
    "teal": ("teal",),
    "white": ("white",),
    "black": ("black",),
    "gray": ("gray", "grey", "silver", "dark gray", "light gray", "light grey"),
    "beige": ("beige", "tan", "cream"),
    "navy": ("navy", "navy blue", "dark blue"),
}
SIZES = {"small": ("small", "little", "tiny"), "big": ("big", "large", "huge")}
PLACES: dict[Place, tuple[str, ...]] = {
    "top left": (
        "in the top left corner",
        "in the upper left corner",
        "at the top left",
        "at the upper left",
        "in the top left",
        "in the upper left",
    ),
    "top": ("at the top", "in the top middle", "at the top center"),
    "top right": (
        "in the top right corner",
        "in the upper right corner",
        "at the top right",
        "at the upper right",
        "in the top right",
        "in the upper right",
    ),
    "left": ("on the left", "on the left side", "at the left"),
    "center": ("in the center", "in the middle", "in the centre", "at the center"),
    "right": ("on the right", "on the right side", "at the right"),
    "bottom left": (
        "in the bottom left corner",
        "in the lower left corner",
        "at the bottom left",
        "at the lower left",
        "in the bottom left",
        "in the lower left",
    ),
    "bottom": ("at the bottom", "in the bottom middle", "at the bottom center"),
    "bottom right": (
        "in the bottom right corner",
        "in the lower right corner",
        "at the bottom right",
        "at the lower right",
        "in the bottom right",
        "in the lower right",
    ),
}
RELATIONS: dict[Relation, tuple[str, ...]] = {
    "left of": ("to the left of", "left of", "on the left of"),
    "right of": ("to the right of", "right of", "on the right of"),
    "above": ("above", "over", "on top of"),
    "below": ("below", "under", "beneath", "underneath"),
}
ACROSS = ("in a row", "side by side", "from left to right", "in a line", "next to each other")
DOWN = ("in a column", "one above the other", "from top to bottom", "stacked")
JOINTS = ("and", "and", "with", "beside", "next to", "alongside")  # a pair reads left to right
NUMBERS = {1: ("one",), 2: ("two", "2", "a pair of", "a couple of"), 3: ("three", "3")}
OPENINGS = (
    "",
    "",
    "",
    "",
    "a picture of ",
    "there is ",
    "an image of ",
    "a photo of ",
    "a drawing of ",
    "draw ",
    "show me ",
    "paint ",
    "please draw ",
    "show ",
    "make ",
)
GROUNDS = (
    "on a {} background",
    "on a {} background",
    "with a {} background",
    "against a {} background",
    "in front of a {} background",
    "on a plain {} background",
    "{} background",
)


def plural(noun: str) -> str:
    """Return the plural of a shape's word: "boxes", "circles"."""
    return f"{noun}es" if noun.endswith(("s", "x")) else f"{noun}s"


def things() -> tuple[str, ...]:
    """Return every word that names an object, singular and plural."""
    nouns = [word for words in SHAPES.values() for word in words]
    return (*nouns, *map(plural, nouns), *ANY_SHAPE)
