"""Words that are no slips of the keyboard, though a word of the miniature is one slip away: "gold" means no "good".

`REAL_WORDS` was chosen by hand: of some 3,000 common English words and 1,700 German, French, Spanish and Dutch ones,
those that `vocabulary.nearest_word` would take for another word. Other forms of a known word ("cloud") and words that
mean the same in another language ("tomate") are not among them.

Paper: none. Notebook: 12.
"""

from __future__ import annotations

REAL_WORDS = frozenset(
    """
back baker bale bans bars bats bead beads beam beard beast beat beats beer beers begun berries bets bits blow blues blur
boar boast boom booth bowel bows breach break bride bring brought buds bugs busy butt butter came captain cards care
cared cares cart carts cast casts cheer cite click coaster cock code coil cold compute cone cones contest coop cord cost
costs cots counter country county creator crows cure cuts dawn dead deaf delight dessert died dies digs dive dose dots
dressed dresser driver drivers drown drunk east ever exit fade fare fats feather fees fiction fined fins fist flat flats
flood flour flowered fold fond ford fore form forms fort founder fried fund gardener general globe glowing gods gold
greater guts halt hate hates hear heard hell herd hers hire hiss hits hole holes honesty hops hose hull hurt jest laps
latter laws layer lead leave lids lied lifting lighter lighting lime liver lost male males mare massage mats meat
mentions minus mist mode money muse nail neat nets neutral news nine noone pace paced paces pain painter painters pane
panes pant pants party peas pegs pest pests petty pier piers pill pint pits plan planets plans planted planter players
poet poets process pulp quit quote rabbi rally reap rear rely response riot ripe rise rises roar roars rocker rockers
rode rods role roles roof roots rover sack sacks sage sake sands sane save screened seed seek seeks sell send shack
shake shakes share shares shift shifts shin shoot shorts shoulder showers sign site sites skull slot snore soda sodas
soft song sore soul spade spit sport stag stare starter starts states stature status steering stiff sting storey storing
strand stranger stray striking strings strong stuffed suit suits sums sway swing tablets tale tales talk tame tank tanks
text thanked thee thin thinks thought threw thus tighter tile toil tons took topical tough tow towards towed tracks
trail trained trainer trick tricks trough trumpeter wages walks wander watched were wheeled wherever whoever widow wife
wine wins wire wise wondered wore writers wrote

alte beide bein bleu bord calle cara carro comer comme contre doen dood doos drie druk eend ende entre ese feld flor
foto geen goed grau hace hart hase hast hauses herr homme huis laat lief ligt livre livres loin maan madre mann moins
mono muts neer noot ofen ohne parte pera pied plage plat poes pont pues roep roze sala sans seit soir soms staart stad
stadt statt stil tier toda toen tous tres trop vert welk wird wonen woord
""".split()
)
