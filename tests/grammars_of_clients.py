"""Grammars (GBNF) as clients send them: what llama.cpp takes, and what it writes into its log."""

import pytest


JSON = r"""
root   ::= object   # from llama.cpp's own examples, in other words
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9]+)? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""

USABLE = [
    JSON,
    'root ::= "a"',
    'root::="a"',
    'root ::= "a" | "b"\n',
    'root ::= (\n "a"\n | "b" )*\nx ::= root',
    '# c\nroot ::= x+ # d\nx ::= [a-z^\\]]? "\\x41\\u00e9\\U0001F600"\n\n',
    'root ::= "a"{2,3} "b"{4} "c"{2,} "d"{ 2 , 3 } "e" {0}',
    'root ::= |\n"a"',
    "root ::= ",
    'root ::= ""',
    'root ::= . "x"',
    'root ::=\n\n "a" |\n "b"',
    'root ::= "a"\r\nb ::= root\r',
    'root ::= ("a" ("b"|"c")*)+ "\\""',
    'root ::= "a"{0,5000}',
    'root ::= "a"{2000}',
    'root ::= "a\nb"',
    "root ::= [-a] [a-] [é-ü] [ ] [\\t]",
    'root ::= ("a")("b"){2}?',
    'root ::= "a"\n   root ::= "c"',
    '1 ::= "a"\nroot ::= 1',
    "root ::= " + "(" * 400 + '"a"' + ")" * 400,
]

BROKEN = [
    pytest.param(grammar, said, id=grammar[:30])
    for grammar, said in (
        ("zqz", "`::=` is missing"),
        ("zqz (((", "`::=` is missing"),
        ("::= zqz", "a rule begins with its name"),
        ("root ::= zqz", "there is no rule `zqz`"),
        ('root ::= "zqz', "no GBNF"),
        ("root ::= [zqz", "no GBNF"),
        ('root ::= "zqz" )', "`)` without `(`"),
        ('root ::= ( "zqz"', "`)` is missing"),
        ("root ::= zqz ::= root", "no GBNF"),
        ('root ::= * "zqz"', "nothing to repeat"),
        ('root ::= "zqz" | +', "nothing to repeat"),
        ('root ::= ""* "zqz"', "nothing to repeat"),
        ('root ::= "zqz"{,3}', "no GBNF"),
        ('root ::= "zqz"{x}', "no GBNF"),
        ('root ::= "zqz\\xZZ"', "no GBNF"),
        ('root ::= "zqz\\q"', "no GBNF"),
        ("root ::= 'zqz'", "no GBNF"),
        ("root ::= <zqz>", "no GBNF"),
        ("root ::= zq_z", "no GBNF"),
        ('root ::= "zqz"{5000}', "repeats too often"),
        ("%llguidance {}\nstart: zqz", "a rule begins with its name"),
        ('root ::= "zqz"\n| "b"', "a rule begins with its name"),
        ('root ::= "zqz"\0', "letter 0"),
    )
]
"""(grammar, what is said): the engine writes them into its log."""

HARMFUL = [
    pytest.param('root ::= "a"{3,1}', "less often than at least", id="endless"),
    pytest.param('root ::= "' + "a" * 10_000 + '"{2000}', "too large", id="millions of letters"),
    pytest.param("root ::= " + "(" * 501 + ")" * 501, "too deeply", id="very deep"),
    pytest.param(
        "\n".join(f"r{n} ::= r{n + 1}" for n in range(10_001)) + "\nroot ::= r0", "too large",
        id="countless rules",
    ),
    pytest.param('x ::= "a"', "no rule `root`", id="nothing to begin with"),
    pytest.param("", "no rule `root`", id="nothing"),
]  # fmt: skip
"""(grammar, what is said): the engine is not even asked about them."""
