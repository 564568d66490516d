"""Captions made at random of what tokenizers stumble over, for test_ptb_tokenizer.py.

Brackets, quotes, currencies, contractions, fractions, abbreviations, dates, times, telephone numbers, addresses, faces,
entities, tags, dashes and letters of many scripts, joined and mixed; a quarter are plain captions.
"""

from random import Random

NOUNS = """dog cat man woman child boy girl boat car bus train plane pizza sandwich table chair street sign clock tower
giraffe zebra horse tree flower kite umbrella laptop phone sink toilet bed book glass cup fork knife spoon apple banana
hot-dog teddy-bear toothbrush café crêpe jalapeño piñata façade fiancée naïveté résumé Zürich São-Paulo Łódź smörgåsbord
北京 Москва кошка собака 犬 猫 고양이 ναός كلب कुत्ता हिन्दी""".split()
ADJECTIVES = """red blue well-dressed half-eaten black-and-white 3-year-old double-decker so-called mid-air 12-inch
1950s-era T-shirted X-rated pre-war anti-war pro- anti- non-stop co-ed e-mailed UK-based U.S.-made vitamin-C""".split()
VERBS = """is sits isn't doesn't can't won't don't didn't couldn't shouldn't've cannot gonna wanna gotta gimme lemme
ain't
hasn't who's that's it's they're we've I'm he'd she'll y'all what's let's ma'am o'clock d'you 'em 'til 'cause o'er ne'er
c'mon goin' nothin' rock'n'roll dunno kinda oughta""".split()
NAMES = """O'Brien McDonald's D'Angelo Macy's James' Toys-R-Us 7-Eleven AT&T H&M M&M's B&B R&B Q&A A&W Dunkin' Levi's
Hawai'i N'Sync L'Oréal J.Crew 'N d'Orsay Xi'an St.Paul Barnes&Noble Yahoo! OK! E! iPhone PS4 MP3 F-16 747 A380 C++ C# F#
No.1 #1 @home #selfie #tbt2020 @joe_smith @nasa. U2 B-52's S&P S&P-500 Ph.D Ph.D. M.D. B.Sc. J.R.R. U.S. U.S.A. U.K.
D.C.
N.Y. a.m. p.m. e.g. i.e. etc. vs. Mr. Mrs. Ms. Dr. Prof. St. Ave. Blvd. Rd. Mt. Ft. Jr. Sr. Inc. Co. Corp. Ltd. Bros.
Gov. Sen. Gen. Col. Sgt. Capt. Lt. Rev. Hon. Jan. Feb. Mar. Apr. Aug. Sept. Oct. Nov. Dec. Mon. Tue. Tues. Wed. Thurs.
Fri. Sat. Sun. No. Nos. Fig. Figs. approx. ca. c. est. dept. Calif. Fla. Tex. Mass. Wash. Ore. Miss. Ill. lb. lbs.
oz. ft.
in. sq. tsp. min. hrs. pp. p. ed. Vol. cont'd cont. Apt. Hwy. Bldg. Est. Ext. Tel. Alex. Wm. Art. op. al. Esq.
Plc. Univ. Assn. Intl. Natl. Mfg.""".split()
FACES = r""":) :-) :( ;) ;-) :D :P :p :o :O :/ :\ :| =) :'( :* <3 </3 xD ^_^ -_- o_o (^_^) >_< T_T 8) B-) :3 :] :[ :} :{
\o/ (: ): :@ ¯\_(ツ)_/¯ 😀 🐶 ❤ ❤️ ♥ ★ ✓ → ← © ® ™ § • · … ° 🇺🇸 👨‍👩‍👧 ☺ ♫ ∞ ≠""".split()
BETWEEN = """ - | -- | --- |--|---|—| — |–| – |...| ...|... |..|....| . . . |…|; |: |, | , |,|. |.| . |! |!! |? |?! |
/| / | & |
&| + |+| * |*| = | ~ | ^ |_| _ |&amp;| &amp; |&lt;|&gt;|&nbsp;|&mdash;| &#39; |\t|  |\u00a0|\u2009|\u200b|-| -|- |:|;|
 @ |
 # |#|%|% """.replace("\n", "").split("|")
AROUND = """" "|' '|“ ”|‘ ’|`` ''|« »|` '|&quot; &quot;|'' ''|„ “|‹ ›|" |´ ´|( )|[ ]|{ }|< >|(( ))|[[ ]]|<< >>|( .)|
( |<b> </b>|
<br/> |* *|** **|_ _|/ /|- -""".replace("\n", "").split("|")
ENDINGS = [".", ".", ".", "!", "?", "...", "!!", "?!", "..", '."', ".)", " .", ",", ";", ":)", " :)", "—", '"', ".''"]
CLITICS = "'s ’s s' s’ 'll 'd 've 're 'm n't 'n' `s ´s 't 'x 'S".split()
UNITS = "ft in lb lbs kg cm mm km mph oz g k GB % ° °C °F ″ ′ * + s hr m² km/h".split()
MONEY = "$ € £ ¥ ₹ ¢ US$ C$ A$ R$ NZ$ USD EUR ₽ ₩ ฿ ₤ ¤ kr".split()
SITES = "example my-site my_site dogs3 flickr Flickr FOO".split()
DOMAINS = """com org net edu co.uk de gov com/ com/a/b com/a?b=c&d=1 org/wiki/Dog_(animal) net. com, com) edu/~joe
com:8080
com's com/img.jpg com/a_b-c.html tv""".split()


def captions(count: int, seed: int) -> list[str]:
    rng = Random(seed)
    return [_plain(rng) if rng.random() < 0.25 else _wild(rng) for _ in range(count)]


def _plain(rng: Random) -> str:
    start, noun, verb = rng.choice(["A", "Two", "The", "An", "Some"]), rng.choice(NOUNS), rng.choice(VERBS)
    where = f"{rng.choice(['on', 'near', 'with'])} {rng.choice(['a', 'the', _number(rng)])} {rng.choice(ADJECTIVES)}"
    return f"{start} {noun} {verb} {where} {rng.choice(NOUNS)}{rng.choice(['.', '', ' .', '!'])}"


def _wild(rng: Random) -> str:
    text = ""
    for _ in range(rng.randint(3, 12)):
        word = _word(rng)
        word = rng.choice([word] * 7 + [word.upper(), word.capitalize(), word[:1].upper() + word[1:]])
        for _ in range(rng.choice([0] * 14 + [1, 1, 2])):
            left, _, right = rng.choice(AROUND).partition(" ")
            word = left + word + right
        text += word + (rng.choice(BETWEEN) if rng.random() < 0.15 else " ")
    return text.strip(" ") + (rng.choice(ENDINGS) if rng.random() < 0.6 else "")


def _word(rng: Random) -> str:
    kinds = [lambda rng: rng.choice(NOUNS)] * 8 + [lambda rng: rng.choice(ADJECTIVES)] * 2
    kinds += [lambda rng: rng.choice(VERBS)] * 2 + [lambda rng: rng.choice(NAMES)] * 3
    kinds += [_number, _number, _money, _address, lambda rng: rng.choice(FACES), _joined]
    return rng.choice(kinds)(rng)


def _joined(rng: Random) -> str:
    if rng.random() < 0.5:
        return rng.choice(NOUNS) + rng.choice(CLITICS)
    return rng.choice(NOUNS) + rng.choice(list("/-&+.,_'|—*!?:;=~@#%\\") + [".."]) + rng.choice(NOUNS + NAMES)


def _number(rng: Random) -> str:
    def upto(most: int, least: int = 1) -> int:
        return rng.randint(least, most)

    area, first, last = upto(999, 200), upto(999, 200), upto(9999, 1000)
    return rng.choice(
        [
            *(
                f"{upto(99)}",
                f"{upto(99999)}",
                f"{upto(999)},{upto(999, 0):03d}",
                f"{upto(99, 0)}.{upto(99)}",
                f".{upto(99)}",
            ),
            *(f"{upto(9)}/{upto(9, 2)}", f"{upto(9)} {upto(9)}/{upto(9, 2)}", f"{upto(9)}-{upto(9)}/{upto(9, 2)}"),
            f"{upto(12)}:{upto(59, 0):02d}{rng.choice(['', 'am', 'pm', ' am', ' p.m.', 'AM', 'h'])}",
            f"{upto(12)}{rng.choice(['am', 'pm', ' a.m.', ' P.M.', ' o’clock'])}",
            f"{upto(12)}/{upto(28)}/{upto(2020, 1990)}",
            f"{upto(2020, 1990)}-{upto(12):02d}-{upto(28):02d}",
            *(f"{upto(28)}-{upto(12)}-{upto(20, 10)}", f"{upto(28)}.{upto(12)}.{upto(2020, 2000)}"),
            f"{upto(20)}{rng.choice(['st', 'nd', 'rd', 'th'])}",
            *(f"{upto(20)}{rng.choice(UNITS)}", f"{upto(20)} {rng.choice(UNITS)}", f"{upto(20)} {rng.choice(UNITS)}."),
            *(f"{upto(9)}'{upto(11, 0)}\"", f"{upto(9)}{rng.choice(['x', '×', ' x ', '-by-', 'X'])}{upto(9)}"),
            *(f"{upto(20, 19)}{upto(9, 0)}0{rng.choice(['s', chr(39) + 's'])}", f"'{upto(9)}0s", f"'{upto(99, 10)}"),
            rng.choice(["½", "¼", "¾", "⅓", "⅔", "1½", "2¾", "⅛", "x²", "m³", "H₂O", "10⁻³", "№5"]),
            f"{rng.choice(['-', '+', '±', '~', '≈', '<', '>', '≥', '#'])}{upto(99)}",
            *(f"({area}) {first}-{last}", f"{area}-{first}-{last}", f"{area}-{last}", f"1-800-{area}-{last}"),
            *(f"{area}.{first}.{last}", f"+{upto(99)} {upto(999, 20)} {first} {last}"),
        ]
    )


def _money(rng: Random) -> str:
    sign, most = rng.choice(MONEY), rng.randint(1, 999)
    sum_ = rng.choice(
        [f"{most}", f"{most}.{rng.randint(0, 99):02d}", f"{most},{rng.randint(0, 999):03d}", "5M", "1.5 million"]
    )
    forms = [f"{sign}{sum_}", f"{sign} {sum_}", f"{sum_}{sign}", f"{sum_} {sign}", f"{sign}{sum_}-{sign}{sum_}"]
    return rng.choice([*forms, f"-{sign}{sum_}", f"{sign}{sum_}/day", f"{sign}{sum_}/lb."])


def _address(rng: Random) -> str:
    site, domain = rng.choice(SITES), rng.choice(DOMAINS)
    if rng.random() < 0.6:
        return f"{rng.choice(['http://', 'https://', 'www.', '', 'http://www.', 'ftp://', 'HTTP://'])}{site}.{domain}"
    mail = [f"{site}@x-y.{domain}", f"joe.b+{site}@x.org", f"<{site}@x.org>", f"({site}@x.org)", f"{site}@", f"@{site}"]
    files = [
        f"img_{rng.randint(1, 999)}.jpg",
        f"IMG{rng.randint(1, 999)}.JPG",
        f"{rng.randint(1, 99)}.png",
        f"{site}.pdf",
    ]
    paths = [rf"C:\{site}\x.txt", f"/usr/{site}/bin", f"~/{site}", f"{site}.py", f"{site}_7", f"#{site}", f"#{site}9"]
    return rng.choice(mail + files + paths)
