"""English words that name no drawable thing: a list maintained by hand.

Words that also often name a thing are not listed: orange, lime, rose.
"""


def _words(*texts: str) -> frozenset[str]:
    return frozenset(" ".join(texts).split())


FUNCTION_WORDS = _words(
    # Articles, determiners and numbers
    "a an the this that these those some any no each every either neither both all half much many "
    "more most few several other another such enough "
    "zero one two three four five six seven eight nine ten first second third "
    # Prepositions, and adverbs of place used like them
    "about above across after against along among amid around as at away back before behind below "
    "beneath beside besides between beyond by down during except for from in inside into near "
    "next of off on onto out outside over past per since through throughout to toward towards "
    "under underneath until up upon via with within without "
    # Conjunctions
    "and but or nor so yet if because while when where than though although whether "
    # Pronouns
    "i me my mine you your yours he him his she her hers it its we us our ours they them their "
    "theirs itself himself herself themselves who whom whose which what there here "
    # Auxiliary verbs and their contractions
    "am is are was were be been being do does did done doing have has had having can could shall "
    "should will would may might must it's there's that's isn't aren't don't doesn't can't i'm "
    # Adverbs and words of address
    "not very too also just only then now again ever never always please how why"
)

_PICTURES = _words(
    "picture pictures photo photos photograph photographs image images drawing drawings painting "
    "paintings portrait portraits sketch sketches illustration illustrations shot closeup view "
    "scene rendering render draw paint show showing shows shown"
)
_COLORS = _words(
    "red green blue yellow pink purple violet brown black white gray grey cyan magenta teal "
    "turquoise navy beige maroon crimson scarlet indigo color colors colored colour colours "
    "coloured colorful colourful dark bright pale"
)
_SIZES = _words(
    "small smaller smallest big bigger biggest large larger largest little tiny huge medium size "
    "sized long short tall wide thin thick"
)
_PLACES = _words(
    "left right top bottom middle center centre upper lower side sides corner corners edge "
    "background foreground row rows column columns"
)

SMALL_WORDS = FUNCTION_WORDS | _PICTURES | {"front"}
NO_THINGS = FUNCTION_WORDS | _PICTURES | _COLORS | _SIZES | _PLACES
