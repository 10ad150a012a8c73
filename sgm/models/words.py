"""The words that the encoder of prompts knows; a word's place is its number, so new ones go to the end."""

_LIST = """
a and animal anticlockwise as away back backing backs backwards ball balloon boat bottom building camera car
cat climb climbing climbs clockwise closer cloud come comes coming counter counterclockwise crane cranes
craning creature doesn't dog dollies dolly dollying don't down downward downwards drift drifting drifts drive
drives driving fall falling falls farther fast figure fixed flies float floating floats fly flying forward
gentle gently get gets getting go goes going hold holds house in inwards jump jumping jumps keep left leftward
leftwards look looking looks make man motion move moves moving nearer no object out outwards pan panning pans
person pull pulling pulls push pushes pushing quick quickly rapid rapidly right rightward rightwards rise
rises rising robot rocket roll rolling rolls rotate rotates rotating run running runs sail sailing sails ship
shot side sink sinking sinks slide slides sliding slow slowly softly spaceship spin spinning spins static stay
stays step stepping steps still subject swiftly swing swinging swings that the thing tilt tilting tilts to top
towards track tracking tracks turn turning turns twist twisting twists up upward upwards vehicle view walk
walking walks while woman zoom zooming zooms
"""
WORDS = tuple(_LIST.split())
