"""Words that visitors type and that the miniature does not know: other languages, other subjects, and slips.

Written by hand, to measure which of them `vocabulary.nearest_word` takes for slips.
"""

#: Of questions in German, French, Spanish and Dutch, 25 each.
FOREIGN = """
was ist das wie viele wo welche farbe hat haus boot katze hund baum auf dem bild gibt sind siehst nacht oder stadt sonne
himmel wer
que est quoi combien quelle couleur dans photo maison bateau chat chien arbre nuit jour ville soleil ciel grand rouge
bleu vert sont fait quel
qué hay cuántos dónde está color imagen casa barco gato perro árbol noche día ciudad sol cielo grande rojo azul verde
cosas hombre mar mesa
wat er zijn hoeveel waar kleur heeft huis boom fiets vogel nacht dag stad zon lucht groot klein rood blauw groen staat
deze dier tafel
""".split()

#: English words of other subjects, each a real word that is not among the miniature's 1,168.
OTHER_SUBJECTS = """
wedding tennis hotel mother father sister brother uncle aunt cousin husband wife nephew boyfriend police army
war weapon sword knight wizard magic ghost zombie vampire monster alien planet galaxy comet telescope gravity
football soccer golf hockey cricket baseball basketball volleyball rugby boxing skiing yoga
zebra giraffe camel goose eagle owl parrot crocodile kangaroo koala panda squirrel hamster wolf fox deer moose
beaver otter seal squid octopus crab lobster shrimp salmon tuna worm ant mosquito beetle ladybug moth wasp
milk coffee wine beer juice yogurt butter honey sugar pepper rice pasta noodle steak bacon ham sausage soda
avocado broccoli cucumber spinach pumpkin garlic ginger peach plum mango melon kiwi coconut walnut peanut almond
blanket pillow curtain carpet fridge oven toaster kettle microwave vacuum broom bucket sponge towel soap shampoo
jacket trousers jeans skirt sweater scarf belt sock boots helmet necklace bracelet earring wallet purse
tractor van taxi tram subway ferry canoe kayak yacht scooter skateboard ambulance
blood bone heart brain stomach knee elbow shoulder finger thumb ankle throat tongue nose mouth ear lips
bell bull boot coin cave hose cold fire farm rode bone gold bath path cap log pan
plan mark chain brick steam storm coal mine
money dollar price market tax loan profit election president justice prison lawyer
""".split()

#: (typed, meant): two letters swapped, one dropped, one doubled, the key beside the right one.
SWAPPED = """
waht-what hwat-what teh-the pitcure-picture ohuse-house huose-house tabel-table colro-color
whcih-which thier-their oragne-orange umbrlela-umbrella bicylce-bicycle moutnain-mountain lihgt-light nihgt-night
thign-thing peolpe-people anmial-animal brid-bird
""".split()
DROPPED = """
pictre-picture umbrela-umbrella baloon-balloon aple-apple huse-house wndow-window thre-there whre-where
bildings-buildings flowr-flower elephnt-elephant rockt-rocket guitr-guitar colr-color yelow-yellow lader-ladder
buterfly-butterfly castl-castle ornge-orange bannana-banana
""".split()
DOUBLED = """
boaat-boat houuse-house ccat-cat wwhat-what pictture-picture coloor-color treee-tree trainn-train birrd-bird mooon-moon
whhere-where appple-apple carrs-cars manyy-many drumm-drum kiite-kite hammmer-hammer rabbbit-rabbit clouuds-clouds
purplee-purple
""".split()
NEIGHBOUR = """
picrure-picture hoise-house yhings-things bosts-boats colot-color wjat-what trre-tree umbrekla-umbrella flowee-flower
elephsnt-elephant rockrt-rocket balliin-balloon xastle-castle bridgw-bridge chaor-chair trsin-train mountaun-mountain
rabbut-rabbit candlr-candle guitat-guitar mirrir-mirror animsl-animal
""".split()
