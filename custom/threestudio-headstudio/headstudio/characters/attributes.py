"""What a procedural character can look like: tables of options, and a choice among them.

Every attribute of a :class:`Character` names one row of a table in :data:`ATTRIBUTES`. A row says
how people write it in a prompt, its colour where it has one, and how often it is drawn for an
ordinary person (``natural``) and in a free mix of everything (``free``).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from headstudio.errors import HeadStudioError

Rgb = tuple[float, float, float]

#: Class index of an attribute that cannot be seen (the hair colour of a bald head).
#: Equals the default ``ignore_index`` of ``torch.nn.functional.cross_entropy``.
IGNORED_CLASS = -100


@dataclass(frozen=True)
class Option:
    """One row of an attribute's table."""

    name: str
    words: tuple[str, ...] = ()  # how prompts say it; empty: it goes without saying
    rgb: Rgb | None = None  # display colour, 0..1
    natural: float = 0.0  # relative frequency among ordinary people
    free: float = 1.0  # relative frequency in free mixes


GENDERS = (
    Option("man", ("man", "man", "man", "guy", "male"), natural=1.0),
    Option("woman", ("woman", "woman", "woman", "lady", "female"), natural=1.0),
)

AGES = (
    Option("young", ("young",), natural=1.0, free=0.6),
    Option("adult", (), natural=2.0, free=2.0),
    Option("old", ("old", "elderly", "old"), natural=0.8, free=0.5),
)

SKINS = (
    Option("pale", ("pale",), (0.93, 0.79, 0.72), 1.0, 0.6),
    Option("fair", ("fair", "light"), (0.87, 0.68, 0.56), 1.6, 0.6),
    Option("tan", ("tan", "tanned"), (0.75, 0.54, 0.38), 1.2, 0.6),
    Option("olive", ("olive",), (0.64, 0.51, 0.33), 0.7, 0.5),
    Option("brown", ("brown",), (0.52, 0.34, 0.22), 1.2, 0.7),
    Option("dark brown", ("dark brown", "dark"), (0.38, 0.235, 0.16), 1.0, 0.6),
    Option("black", ("black",), (0.23, 0.15, 0.115), 0.7, 0.6),
    Option("blue", ("blue", "blue", "azure"), (0.20, 0.38, 0.85), 0.0, 1.6),
    Option("light blue", ("light blue", "sky blue"), (0.52, 0.75, 0.95), 0.0, 0.7),
    Option("turquoise", ("turquoise", "teal", "cyan"), (0.15, 0.70, 0.70), 0.0, 0.7),
    Option("green", ("green",), (0.24, 0.60, 0.22), 0.0, 1.5),
    Option("red", ("red",), (0.80, 0.14, 0.11), 0.0, 1.3),
    Option("grey", ("grey", "gray"), (0.53, 0.54, 0.56), 0.0, 1.0),
    Option("purple", ("purple", "violet"), (0.48, 0.22, 0.68), 0.0, 1.2),
    Option("golden", ("golden", "gold"), (0.85, 0.63, 0.13), 0.0, 1.0),
    Option("orange", ("orange",), (0.93, 0.46, 0.10), 0.0, 1.0),
    Option("pink", ("pink",), (0.95, 0.50, 0.67), 0.0, 0.9),
    Option("yellow", ("yellow",), (0.95, 0.86, 0.20), 0.0, 0.8),
    Option("white", ("white", "snow white"), (0.95, 0.95, 0.95), 0.0, 0.8),
)

HAIR_STYLES = (
    Option("bald", ("bald",), natural=0.9, free=1.2),
    Option("buzz cut", ("a {} buzz cut", "a {} crew cut", "very short {} hair"), None, 0.7, 0.7),
    Option("short", ("short {} hair", "short {} hair", "{} hair"), None, 1.6, 1.3),
    Option("side parted", ("side-parted {} hair", "short {} hair"), None, 1.0, 0.9),
    Option("slicked back", ("slicked-back {} hair", "{} hair combed back"), None, 0.8, 0.8),
    Option("spiky", ("spiky {} hair",), None, 0.5, 0.9),
    Option("curly", ("curly {} hair", "short curly {} hair"), None, 0.9, 1.0),
    Option("afro", ("a {} afro", "a {} afro hairstyle", "big curly {} hair"), None, 0.5, 0.8),
    Option("mohawk", ("a {} mohawk", "a {} mohawk hairstyle", "a {} punk mohawk"), None, 0.1, 0.9),
    Option("bob", ("a {} bob", "a {} bob haircut", "chin-length {} hair"), None, 0.9, 1.0),
    Option("fringe", ("{} hair with bangs", "a {} bob with a fringe"), None, 0.6, 0.8),
    Option("long", ("long {} hair", "long {} hair", "long straight {} hair"), None, 1.6, 1.7),
    Option("long wavy", ("long wavy {} hair", "wavy {} hair", "long {} hair"), None, 1.0, 1.0),
    Option("ponytail", ("a {} ponytail", "{} hair in a ponytail"), None, 0.7, 0.8),
    Option("bun", ("a {} bun", "{} hair in a bun", "a {} top bun"), None, 0.5, 0.7),
    Option("balding", ("receding {} hair", "a bald top with {} hair"), None, 0.4, 0.2),
)

HAIR_COLORS = (
    Option("black", ("black",), (0.07, 0.06, 0.06), 1.6, 1.0),
    Option("brown", ("brown", "brunette"), (0.30, 0.17, 0.09), 1.6, 1.0),
    Option("blonde", ("blonde", "blond", "golden"), (0.88, 0.69, 0.32), 1.2, 1.1),
    Option("red", ("red", "red", "ginger"), (0.70, 0.16, 0.05), 0.9, 1.3),
    Option("grey", ("grey", "gray"), (0.55, 0.55, 0.56), 0.4, 0.8),
    Option("white", ("white",), (0.93, 0.93, 0.92), 0.3, 0.9),
    Option("blue", ("blue",), (0.12, 0.26, 0.85), 0.0, 1.0),
    Option("green", ("green",), (0.12, 0.62, 0.16), 0.0, 1.0),
    Option("pink", ("pink", "hot pink"), (0.96, 0.36, 0.62), 0.0, 1.0),
    Option("purple", ("purple", "violet"), (0.46, 0.13, 0.66), 0.0, 1.0),
    Option("orange", ("orange",), (0.96, 0.48, 0.06), 0.0, 0.8),
)

BEARDS = (
    Option("none", (), natural=2.2, free=1.8),
    Option("stubble", ("{} stubble", "a {} stubble beard"), None, 0.6, 0.4),
    Option("moustache", ("a {} moustache", "a {} mustache"), None, 0.6, 0.6),
    Option("goatee", ("a {} goatee",), None, 0.5, 0.5),
    Option("full", ("a {} beard", "a full {} beard", "a short {} beard"), None, 0.9, 0.8),
    Option("long", ("a long {} beard", "a big {} beard"), None, 0.5, 0.6),
)

LIPS = (
    Option("natural", (), None, 4.0, 2.6),
    Option("red", ("red",), (0.80, 0.04, 0.06), 1.0, 1.0),
    Option("pink", ("pink",), (0.95, 0.42, 0.58), 0.5, 0.7),
    Option("black", ("black",), (0.04, 0.03, 0.04), 0.05, 0.9),
    Option("blue", ("blue",), (0.08, 0.18, 0.85), 0.0, 0.8),
    Option("purple", ("purple",), (0.42, 0.07, 0.55), 0.05, 0.8),
    Option("green", ("green",), (0.08, 0.60, 0.16), 0.0, 0.7),
    Option("white", ("white",), (0.96, 0.96, 0.96), 0.0, 0.4),
    Option("orange", ("orange",), (0.96, 0.45, 0.06), 0.0, 0.4),
    Option("golden", ("golden", "gold"), (0.86, 0.64, 0.12), 0.0, 0.4),
    # Smooth skin instead of a mouth. Never drawn: the bundled prior was trained without it.
    Option("none", ("no mouth", "no mouth at all"), None, 0.0, 0.0),
)

EYES = (
    Option("brown", ("brown",), (0.32, 0.17, 0.07), 2.0, 1.0),
    Option("blue", ("blue",), (0.16, 0.42, 0.85), 1.3, 1.2),
    Option("green", ("green",), (0.18, 0.60, 0.24), 0.9, 1.0),
    Option("hazel", ("hazel", "amber"), (0.62, 0.40, 0.10), 0.7, 0.5),
    Option("grey", ("grey", "gray"), (0.50, 0.56, 0.60), 0.5, 0.5),
    Option("red", ("red",), (0.85, 0.05, 0.05), 0.0, 0.9),
    Option("yellow", ("yellow",), (0.95, 0.85, 0.10), 0.0, 0.9),
    Option("purple", ("purple", "violet"), (0.50, 0.18, 0.75), 0.0, 0.6),
    Option("black", ("black",), (0.03, 0.03, 0.03), 0.3, 0.6),
    Option("white", ("white",), (0.95, 0.95, 0.95), 0.0, 0.3),
)

GLASSES = (
    Option("none", (), natural=5.0, free=5.0),
    Option("round", ("round glasses", "glasses", "eyeglasses"), (0.06, 0.06, 0.07), 0.6, 0.5),
    Option("square", ("square glasses", "glasses", "black glasses"), (0.05, 0.04, 0.04), 0.5, 0.4),
    Option("sunglasses", ("sunglasses", "dark sunglasses"), (0.03, 0.03, 0.035), 0.4, 0.5),
)

PAINTS = (
    Option("none", (), natural=1.0, free=16.0),
    Option("clown", ("clown makeup", "clown face paint"), (0.96, 0.96, 0.96), 0.0, 0.5),
    Option("zombie", ("zombie makeup", "rotten zombie skin"), (0.47, 0.55, 0.38), 0.0, 0.4),
    Option("robot", ("metal panels", "a robotic face"), None, 0.0, 0.5),
    Option("warrior", ("war paint", "red warrior stripes"), (0.80, 0.10, 0.08), 0.0, 0.6),
    Option("skull", ("skull makeup", "skull face paint"), (0.93, 0.92, 0.88), 0.0, 0.5),
    Option("tiger", ("tiger stripes", "tiger face paint"), (0.06, 0.05, 0.05), 0.0, 0.4),
    Option("mask", ("a black eye mask", "a black mask"), (0.04, 0.04, 0.05), 0.0, 0.5),
    Option("tribal", ("tribal stripes", "dark tribal stripes"), None, 0.0, 0.4),
    Option("eye shadow", ("purple eye shadow", "eye shadow"), (0.45, 0.12, 0.55), 0.1, 0.5),
)

ACCESSORIES = (
    Option("none", (), natural=9.0, free=9.0),
    Option("horns", ("horns", "two horns", "demon horns"), (0.17, 0.13, 0.11), 0.0, 0.7),
    Option("eye patch", ("an eye patch", "a black eye patch"), (0.03, 0.03, 0.03), 0.05, 0.4),
    Option("crown", ("a golden crown", "a crown"), (0.95, 0.73, 0.15), 0.05, 0.6),
    Option("headband", ("a red headband", "a red bandana"), (0.80, 0.07, 0.07), 0.15, 0.5),
)

#: What the character is, when it has a name of its own. "person" is everybody else.
ARCHETYPES = (
    Option("person"),
    Option("clown", ("clown", "circus clown")),
    Option("zombie", ("zombie", "undead zombie")),
    Option("robot", ("robot", "android", "humanoid robot")),
    Option("alien", ("alien", "extraterrestrial alien")),
    Option("vampire", ("vampire",)),
    Option("demon", ("demon", "devil")),
    Option("witch", ("witch",)),
    Option("pirate", ("pirate",)),
    Option("skeleton", ("skeleton", "skull")),
    Option("statue", ("statue",)),
    Option("ogre", ("ogre", "orc", "green ogre")),
    Option("wizard", ("wizard", "old wizard")),
    Option("king", ("king",)),
    Option("queen", ("queen",)),
    Option("na'vi", ("Na'vi", "Na'vi from Avatar")),
    Option("punk", ("punk", "punk rocker")),
    Option("mime", ("mime", "pantomime")),
)

ATTRIBUTES: dict[str, tuple[Option, ...]] = {
    "archetype": ARCHETYPES,
    "gender": GENDERS,
    "age": AGES,
    "skin": SKINS,
    "hair_style": HAIR_STYLES,
    "hair_color": HAIR_COLORS,
    "brow_color": HAIR_COLORS,
    "beard": BEARDS,
    "beard_color": HAIR_COLORS,
    "lips": LIPS,
    "eyes": EYES,
    "glasses": GLASSES,
    "paint": PAINTS,
    "accessory": ACCESSORIES,
}

_BROWLESS = ("robot", "alien", "skeleton")  # archetypes

_INDEX = {key: {o.name: i for i, o in enumerate(table)} for key, table in ATTRIBUTES.items()}


def option(attribute: str, name: str) -> Option:
    """The row of an attribute's table; HeadStudioError names the rows there are."""
    return ATTRIBUTES[attribute][option_index(attribute, name)]


def option_index(attribute: str, name: str) -> int:
    """The row number of ``name`` in the table of ``attribute``."""
    if attribute not in _INDEX:
        raise HeadStudioError(
            f"unknown character attribute {attribute!r}; there are {', '.join(ATTRIBUTES)}"
        )
    if not isinstance(name, str) or name not in _INDEX[attribute]:
        raise HeadStudioError(
            f"unknown {attribute} {name!r}; there are {', '.join(_INDEX[attribute])}"
        )
    return _INDEX[attribute][name]


@dataclass(frozen=True)
class Character:
    """A head one can put in words. Strings name rows of :data:`ATTRIBUTES`.

    ``shape``: leading identity coefficients of the head model, in standard deviations.
    ``seed``: what no word says: freckles, the fall of the hair, small shifts of every colour.
    """

    archetype: str = "person"
    gender: str = "woman"
    age: str = "adult"
    skin: str = "fair"
    hair_style: str = "long"
    hair_color: str = "brown"
    brow_color: str = "brown"
    beard: str = "none"
    beard_color: str = "brown"
    lips: str = "natural"
    eyes: str = "brown"
    glasses: str = "none"
    paint: str = "none"
    accessory: str = "none"
    shape: tuple[float, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for key in ATTRIBUTES:
            option_index(key, getattr(self, key))


def attribute_classes(character: Character) -> dict[str, int]:
    """Class index of every attribute, :data:`IGNORED_CLASS` for what cannot be seen of the
    character from anywhere."""
    classes = {key: option_index(key, getattr(character, key)) for key in ATTRIBUTES}
    if character.hair_style == "bald":
        classes["hair_color"] = IGNORED_CLASS
    if character.beard == "none":
        classes["beard_color"] = IGNORED_CLASS
    if character.glasses == "sunglasses":
        classes["eyes"] = IGNORED_CLASS
    if not has_brows(character):
        classes["brow_color"] = IGNORED_CLASS
    if character.paint == "zombie":  # the only paint that covers all skin
        classes["skin"] = IGNORED_CLASS
    return classes


def attribute_names() -> dict[str, list[str]]:
    """Names of every attribute's classes, in the order of their index."""
    return {key: [o.name for o in table] for key, table in ATTRIBUTES.items()}


def has_mouth(character: Character) -> bool:
    """Whether there are lips and what lies behind them, or smooth skin."""
    return character.lips != "none"


def has_brows(character: Character) -> bool:
    """Whether a character's brows are hair and not bare or painted over."""
    return character.archetype not in _BROWLESS and character.paint != "skull"


def is_unusual(character: Character, attribute: str) -> bool:
    """Whether an attribute is one that no ordinary person has, so that a prompt would say it."""
    return option(attribute, getattr(character, attribute)).natural < 0.06


assert {f.name for f in fields(Character)} == {*ATTRIBUTES, "shape", "seed"}
