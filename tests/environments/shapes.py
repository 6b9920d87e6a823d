"""Every shape in which a function can depend on something: a program for each, and what it needs.

Each program defines ``f`` (and ``arguments``, a tuple) in a module that travels by value, as
``__main__`` does. `PROJECT` are the user's own modules that it may use.
"""

from __future__ import annotations

from dataclasses import dataclass

PROJECT = {
    "own_flat.py": "import mdurl\ndef encode(x): return mdurl.encode(x)\n",
    "own_pack/__init__.py": "from .inner import encode\n",
    "own_pack/inner.py": "from . import deep\nfrom .deep.helper import encode, Base\n",
    "own_pack/deep/__init__.py": "",
    "own_pack/deep/helper.py": (
        "import mdurl\nfrom ... import own_pack as top\ndef encode(x): return mdurl.encode(x)\n"
        "class Base:\n  def method(self, x): return encode(x)\n"
    ).replace("from ... import own_pack as top\n", "from .. import inner\n"),
    "own_space/part/tool.py": "import mdurl\ndef encode(x): return mdurl.encode(x)\n",
    "own_cycle_a.py": (
        "import own_cycle_b\ndef even(n): return n == 0 or own_cycle_b.odd(n - 1)\n"
    ),
    "own_cycle_b.py": (
        "import mdurl, own_cycle_a\n"
        "def odd(n): return bool(mdurl.encode('')) or n != 0 and own_cycle_a.even(n - 1)\n"
    ),
    "own_data.py": (
        "import dataclasses, mdurl\n"
        "@dataclasses.dataclass\nclass Point:\n  x: str\n"
        "  def encoded(self): return mdurl.encode(self.x)\n"
    ),
    "own_decorators.py": (
        "import functools\n"
        "def bare(fn):\n  def wrapper(*args):\n    import mdurl\n    return fn(*args)\n"
        "  return wrapper\n"
        "def wrapping(fn):\n  @functools.wraps(fn)\n  def wrapper(*args): return fn(*args)\n"
        "  return wrapper\n"
    ),
    "own_typing.py": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n  import not_there_for_types\n"
        "def value() -> not_there_for_types.X: return 'a%20b'\n"
    ).replace("def value() -> not_there_for_types.X", "def value()"),
}

MDURL = "mdurl"
IMPORTED = "def encode(x):\n  import mdurl\n  return mdurl.encode(x)\n"


@dataclass(frozen=True)
class Shape:
    """A program.

    Attributes:
        name: What is special about it.
        source: It defines ``f``; calling it returns ``"a%20b"`` unless ``expected`` says else.
        needs: Imports that analysis must list, each with the place where it is seen.
        distributions: Names of what must travel.
        expected: What the call returns.
    """

    name: str
    source: str
    needs: tuple[tuple[str, str], ...] = ()
    distributions: tuple[str, ...] = (MDURL,)
    expected: object = "a%20b"


SHAPES = (
    Shape(
        "import inside",
        "def f():\n  import mdurl\n  return mdurl.encode('a b')",
        (("mdurl", "f (shape.py:2)"),),
    ),
    Shape(
        "module-global alias",
        "import mdurl as m\ndef f(): return m.encode('a b')",
        (("mdurl", "f (shape.py:2)"),),
    ),
    Shape(
        "from x import y as z",
        "from mdurl import encode as e\ndef f(): return e('a b')",
        (("mdurl._encode", "f (shape.py:2)"),),
    ),
    Shape(
        "from x import y as z, inside",
        "def f():\n  from mdurl import encode as e\n  return e('a b')",
        (("mdurl", "f (shape.py:2)"),),
    ),
    Shape(
        "submodule by its whole name",
        "import google.protobuf.internal.wire_format\n"
        "def f(): return google.protobuf.internal.wire_format.TAG_TYPE_BITS",
        (("google.protobuf.internal.wire_format", "f (shape.py:2)"),),
        ("protobuf",),
        3,
    ),
    Shape(
        "nested function",
        "def f():\n  def inner():\n    def deeper():\n      import mdurl\n"
        "      return mdurl.encode('a b')\n    return deeper()\n  return inner()",
        (("mdurl", "f (shape.py:4)"),),
    ),
    Shape("lambda", "import mdurl\nf = lambda: mdurl.encode('a b')"),
    Shape("lambda in a default", "import mdurl\ndef f(g=lambda: mdurl.encode('a b')): return g()"),
    Shape(
        "closure over a function",
        IMPORTED + "def make(g):\n  def f(): return g('a b')\n  return f\nf = make(encode)",
        (("mdurl", "encode (shape.py:2)"),),
    ),
    Shape(
        "closure over a class",
        "import mdurl\nclass C:\n  def m(self): return mdurl.encode('a b')\n"
        "def make(c):\n  return lambda: c().m()\nf = make(C)",
        (("mdurl", "C.m (shape.py:3)"),),
    ),
    Shape(
        "closure over a module",
        "def make():\n  import mdurl\n  return lambda: mdurl.encode('a b')\nf = make()",
        (("mdurl", "make.<locals>.<lambda> (shape.py:3)"),),
    ),
    Shape(
        "decorated with wraps",
        "import own_decorators\n@own_decorators.wrapping\n"
        "def f():\n  import mdurl\n  return mdurl.encode('a b')",
        (("mdurl", "f (shape.py:4)"),),
    ),
    Shape(
        "decorated without wraps",
        "import own_decorators\n@own_decorators.bare\ndef f(): return 'a%20b'",
        (("mdurl", "bare.<locals>.wrapper (own_decorators.py:4)"),),
    ),
    Shape(
        "partial",
        "import functools\n" + IMPORTED + "f = functools.partial(encode, 'a b')",
        (("mdurl", "encode (shape.py:3)"),),
    ),
    Shape(
        "bound method",
        "class C:\n  x = 'a b'\n  def m(self):\n    import mdurl\n"
        "    return mdurl.encode(self.x)\nf = C().m",
        (("mdurl", "C.m (shape.py:4)"),),
    ),
    Shape(
        "bound method of a class with an own base",
        "from own_pack import inner\nclass C(inner.Base):\n  pass\n"
        "f, arguments = C().method, ('a b',)",
    ),
    Shape(
        "static method",
        "class C:\n  @staticmethod\n  def m():\n    import mdurl\n"
        "    return mdurl.encode('a b')\nf = C.m",
    ),
    Shape(
        "class method",
        "class C:\n  @classmethod\n  def m(cls):\n    import mdurl\n"
        "    return mdurl.encode('a b')\nf = C.m",
    ),
    Shape(
        "callable object",
        "import mdurl\nclass C:\n  def __call__(self): return mdurl.encode('a b')\nf = C()",
    ),
    Shape(
        "instance of an own class as argument",
        "def f(p): return p.encoded()\nimport own_data\narguments = (own_data.Point('a b'),)",
        (("own_data", "an argument"),),
    ),
    Shape(
        "instance of a class of this program, in a list, as argument",
        "def f(p): return p[0].m()\nclass C:\n  def m(self):\n    import mdurl\n"
        "    return mdurl.encode('a b')\narguments = ([C()],)",
        (("mdurl", "C.m (shape.py:4)"),),
    ),
    Shape(
        "dataclass of this program as argument",
        "import dataclasses\n@dataclasses.dataclass\nclass D:\n  x: str\n"
        "  def m(self):\n    import mdurl\n    return mdurl.encode(self.x)\n"
        "def f(d): return d.m()\narguments = (D('a b'),)",
    ),
    Shape(
        "function as argument",
        IMPORTED + "def f(g): return g('a b')\narguments = (encode,)",
        (("mdurl", "encode (shape.py:2)"),),
    ),
    Shape("helper in the same file", IMPORTED + "def f(): return encode('a b')"),
    Shape(
        "helper in another module",
        "import own_flat\ndef f(): return own_flat.encode('a b')",
        (("own_flat", "f (shape.py:2)"), ("mdurl", "own_flat (own_flat.py:1)")),
    ),
    Shape(
        "package with relative imports",
        "def f():\n  from own_pack import encode\n  return encode('a b')",
        (("own_pack", "f (shape.py:2)"), ("mdurl", "own_pack.deep.helper (helper.py:1)")),
    ),
    Shape(
        "namespace package",
        "def f():\n  from own_space.part import tool\n  return tool.encode('a b')",
        (("own_space.part", "f (shape.py:2)"), ("mdurl", "own_space.part.tool (tool.py:1)")),
    ),
    Shape(
        "recursion and cycles",
        "import own_cycle_a\ndef g(n): return f(n)\n"
        "def f(n=0): return own_cycle_a.even(4) if n else g(1)",
        (("mdurl", "own_cycle_b (own_cycle_b.py:1)"),),
        expected=True,
    ),
    Shape(
        "import_module of a literal",
        "import importlib\ndef f(): return importlib.import_module('mdurl').encode('a b')",
        (("mdurl", "f (shape.py:2)"),),
    ),
    Shape("__import__", "def f(): return __import__('mdurl').encode('a b')"),
    Shape(
        "optional and here",
        "def f():\n  try:\n    import mdurl\n  except ImportError:\n    return 'without'\n"
        "  return mdurl.encode('a b')",
    ),
    Shape(
        "optional and not here",
        "def f():\n  try:\n    import not_there_at_all\n"
        "  except ImportError:\n    return 'without'",
        (("not_there_at_all", "f (shape.py:3)"),),
        (),
        "without",
    ),
    Shape(
        "TYPE_CHECKING",
        "import typing\nimport own_typing\n"
        "def f():\n  if typing.TYPE_CHECKING:\n    import not_there_at_all\n"
        "  return own_typing.value()",
        (("own_typing", "f (shape.py:6)"),),
        (),
    ),
    Shape(
        "other import names",
        "def f():\n  import yaml\n  from PIL import Image\n  from google.protobuf import message\n"
        "  return yaml.safe_load('a: 1'), Image.new('1', (2, 3)).size, message.__name__",
        (("yaml", "f (shape.py:2)"), ("PIL", "f (shape.py:3)")),
        ("pillow", "protobuf", "PyYAML"),
        ({"a": 1}, (2, 3), "google.protobuf.message"),
    ),
    Shape(
        "singledispatch",
        "import functools, mdurl\n@functools.singledispatch\ndef show(x): return 'other'\n"
        "@show.register\ndef _(x: str): return mdurl.encode(x)\ndef f(): return show('a b')",
        (("mdurl", "_ (shape.py:5)"),),
    ),
    Shape(
        "singledispatch itself",
        "import functools, mdurl\n@functools.singledispatch\ndef f(x): return 'other'\n"
        "@f.register(str)\ndef _(x): return mdurl.encode(x)\narguments = ('a b',)",
    ),
    Shape(
        "lru_cache",
        "import functools, mdurl\n@functools.lru_cache(maxsize=2)\n"
        "def g(x): return mdurl.encode(x)\ndef f(): return g('a b')",
    ),
    Shape(
        "lru_cache itself",
        "import functools, mdurl\n@functools.cache\ndef f(): return mdurl.encode('a b')",
    ),
    Shape(
        "cached_property",
        "import functools, mdurl\nclass C:\n  @functools.cached_property\n"
        "  def p(self): return mdurl.encode('a b')\ndef f(): return C().p",
        (("mdurl", "C.p (shape.py:4)"),),
    ),
    Shape(
        "singledispatchmethod",
        "import functools, mdurl\nclass C:\n  @functools.singledispatchmethod\n"
        "  def m(self, x): return 'other'\n  @m.register\n"
        "  def _(self, x: str): return mdurl.encode(x)\ndef f(): return C().m('a b')",
    ),
    Shape(
        "coroutine function",
        "async def f():\n  import asyncio, mdurl\n  await asyncio.sleep(0)\n"
        "  return mdurl.encode('a b')",
        (("mdurl", "f (shape.py:2)"),),
    ),
    Shape(
        "generator",
        "def g():\n  import mdurl\n  yield mdurl.encode('a b')\ndef f(): return next(g())",
        (("mdurl", "g (shape.py:2)"),),
    ),
    Shape(
        "defined by exec",
        "scope = {}\nexec('def f():\\n  import mdurl\\n  return mdurl.encode(\"a b\")', scope)\n"
        "f = scope['f']",
        (("mdurl", "f (<string>:2)"),),
    ),
    Shape(
        "enumeration and named tuple",
        "import enum, typing, mdurl\nclass E(enum.Enum):\n  A = 'a b'\n"
        "class N(typing.NamedTuple):\n  e: E\ndef f(): return mdurl.encode(N(E.A).e.value)",
    ),
    Shape(
        "metaclass, property and inner class",
        "import mdurl\nclass M(type):\n  def __call__(cls): return super().__call__()\n"
        "class C(metaclass=M):\n  class D:\n    @property\n    def p(self): return "
        "mdurl.encode('a b')\ndef f(): return C().D().p",
    ),
    Shape(
        "standard library only",
        "import json\nfrom xml.dom import minidom\n"
        "def f(): return json.dumps([1]), minidom.__name__",
        (),
        (),
        ("[1]", "xml.dom.minidom"),
    ),
)  # fmt: skip
