"""From a function to distributions, own modules and what is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.requirements import Requirement

from afarm.environments import Dependencies, analyze, dependencies, look_ahead
from afarm.environments.installed import Installed
from afarm.environments.modules import locate
from afarm.errors import DependencyError
from tests.environments.made_up import Install, Project


def by_value(source: str, **names: object) -> Any:
    scope: dict[str, object] = {"__name__": "__main__", **names}
    exec(source, scope)
    return scope["f"]


def names(found: Dependencies) -> list[str]:
    return [distribution.name for distribution in found.distributions]


def trees(found: Dependencies) -> dict[str, list[str]]:
    return {tree.name: [file.name for file in tree.files] for tree in found.local}


def test_the_closure_of_numpy_is_numpy() -> None:
    found = analyze(by_value("def f():\n  import numpy as np\n  return np.zeros(1)"))

    assert found.requirements() == [f"numpy=={importlib.metadata.version('numpy')}"]
    assert found.local == ()
    assert found.missing == ()
    assert found.preload == ("numpy",)
    (numpy,) = found.distributions
    listed = {file.name for file in numpy.files}
    assert "site-packages/numpy/__init__.py" in listed
    assert any(file.native for file in numpy.files)
    assert any(name.startswith("site-packages/numpy.libs/") for name in listed)
    assert not any(name.endswith(".pyc") for name in listed)
    assert numpy.bytes == sum(os.stat(file.path).st_size for file in numpy.files)


def test_the_closure_is_what_the_metadata_requires() -> None:
    found = analyze(by_value("def f():\n  import rich.table"))

    expected = {"rich"}
    pending = ["rich"]
    while pending:
        for requirement in map(Requirement, importlib.metadata.requires(pending.pop()) or ()):
            known = requirement.name.lower() in expected
            if known or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
                continue
            expected.add(requirement.name.lower())
            pending.append(requirement.name)
    assert {name.lower() for name in names(found)} == expected
    assert found.preload == ("rich.table",)


def test_the_standard_library_needs_nothing() -> None:
    found = analyze(by_value("def f():\n  import json, xml.dom.minidom, _socket, sys"))

    assert found == Dependencies((), (), (), (), ())


def test_markers_extras_and_circles_are_followed(install: Install) -> None:
    install("top", {"top.py": ""}, requires=("mid[fast,absent]", "never; sys_platform == 'none'"))
    install(
        "mid",
        {"mid.py": ""},
        requires=("speed; extra == 'fast'", "other; extra == 'slow'", "top", "not-installed"),
        extras=("fast", "slow"),
    )
    for name in ("speed", "other", "never"):
        install(name, {f"{name}.py": ""})

    assert names(analyze(by_value("def f(): import top"))) == ["mid", "speed", "top"]
    assert names(analyze(by_value("def f(): import mid"))) == ["mid", "speed", "top"]
    assert names(analyze(by_value("def f(): import speed"))) == ["speed"]


def test_a_distribution_is_known_by_its_files_whatever_it_is_called(install: Install) -> None:
    library = "opencv_python_headless.libs/libavcodec-cf8c0a5b.so.59"
    install(
        "opencv-python-headless",
        {"cv2/__init__.py": "", "cv2/cv2.abi3.so": "", "cv2/data/eye.xml": "", library: ""},
    )

    (found,) = analyze(by_value("def f(): import cv2")).distributions

    assert found.name == "opencv-python-headless"
    travelling = {file.name for file in found.files}
    assert {f"site-packages/{library}", "site-packages/cv2/data/eye.xml"} <= travelling


def test_packages_of_one_namespace_are_told_apart(install: Install) -> None:
    install("space-one", {"space/one.py": ""})
    install("space-two", {"space/two/__init__.py": ""})

    assert names(analyze(by_value("def f(): import space.one"))) == ["space-one"]
    assert names(analyze(by_value("def f(): from space import two"))) == ["space-two"]


def test_of_two_distributions_with_one_name_the_first_on_the_path_counts(
    install: Install, tmp_path: Path
) -> None:
    folder = install("twin", {"twin.py": "first"}, version="2.0")
    other = tmp_path / "later"
    (other / "twin-1.0.dist-info").mkdir(parents=True)
    (other / "twin-1.0.dist-info" / "METADATA").write_text("Name: twin\nVersion: 1.0\n")

    assert Installed([str(folder), str(other)]).describe("twin").version == "2.0"
    assert Installed([str(other), str(folder)]).describe("twin").version == "1.0"


def test_a_distribution_without_a_record_is_taken_by_its_top_level(install: Install) -> None:
    install(
        "debian",
        {"debian_mod/__init__.py": "", "debian-1.0.dist-info/top_level.txt": "debian_mod\n"},
        record=False,
    )

    found = analyze(by_value("def f(): import debian_mod"))

    assert names(found) == ["debian"]
    assert [file.name for file in found.distributions[0].files] == [
        "site-packages/debian-1.0.dist-info/METADATA",
        "site-packages/debian-1.0.dist-info/top_level.txt",
        "site-packages/debian_mod/__init__.py",
    ]


@pytest.mark.parametrize("as_folder", [True, False])
def test_a_distribution_of_debians_is_taken_with_its_extension_module(
    install: Install, as_folder: bool
) -> None:
    site = install("unrelated", {"unrelated.py": "", "space/other.py": ""})
    extension = f"_fast{sysconfig.get_config_var('EXT_SUFFIX')}"
    for name in ("fast/__init__.py", extension, "space/fast.py", "space/__init__.py"):
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_text("")
    info = site / "Fast-2.0.egg-info"
    metadata = "Metadata-Version: 1.1\nName: Fast\nVersion: 2.0\n"
    if as_folder:
        info.mkdir()
        (info / "PKG-INFO").write_text(metadata)
        (info / "top_level.txt").write_text("_fast\nfast\nspace\n")
        (info / "SOURCES.txt").write_text("setup.py\nlib/fast/__init__.py\n")
    else:
        info.write_text(metadata)

    found = analyze(by_value("def f(): import fast"))

    assert found.requirements() == ["Fast==2.0"]
    listed = {file.name.removeprefix("site-packages/") for file in found.distributions[0].files}
    if as_folder:
        assert {extension, "Fast-2.0.egg-info/PKG-INFO", "space/fast.py"} <= listed
        assert names(analyze(by_value("def f(): from space import other"))) == ["Fast", "unrelated"]
    else:
        assert listed == {"fast/__init__.py", "Fast-2.0.egg-info"}


def test_a_module_beside_the_script_travels_as_one_file(project: Project) -> None:
    project.write({"own_helpers.py": "import json\n", "own_unrelated.py": ""})

    found = analyze(by_value("def f(): import own_helpers"))

    assert trees(found) == {"own_helpers.py": ["source/own_helpers.py"]}
    assert found.preload == ()
    assert found.missing == ()


def test_a_package_travels_whole_with_what_its_modules_import(project: Project) -> None:
    project.write(
        {
            "own_pkg/__init__.py": "from . import core\n",
            "own_pkg/core.py": "from .deep.inner import x\nimport own_other\n",
            "own_pkg/deep/inner.py": "import numpy.linalg\nx = 1\n",
            "own_pkg/unused.py": "",
            "own_other.py": "",
        }
    )
    (project.folder / "own_pkg" / "data.csv").write_text("1,2")
    (project.folder / "own_pkg" / ".secret").write_text("")
    (project.folder / "own_pkg" / "__pycache__").mkdir()
    (project.folder / "own_pkg" / "__pycache__" / "core.pyc").write_text("")

    found = analyze(by_value("def f(): from own_pkg import core"))

    assert trees(found) == {
        "own_other.py": ["source/own_other.py"],
        "own_pkg": [
            "source/own_pkg/__init__.py",
            "source/own_pkg/core.py",
            "source/own_pkg/data.csv",
            "source/own_pkg/deep/inner.py",
            "source/own_pkg/unused.py",
        ],
    }
    assert names(found) == ["numpy"]
    assert found.preload == ("numpy.linalg",)
    where = {needed.module: needed.where for needed in found.modules}
    assert where["numpy.linalg"] == "own_pkg.deep.inner (inner.py:1)"


def test_nothing_is_imported_to_find_out(project: Project) -> None:
    project.write(
        {
            "own_loud/__init__.py": "raise SystemExit('imported')",
            "own_loud/inner.py": "import numpy\n",
        }
    )

    found = analyze(by_value("def f(): import own_loud.inner"))

    assert names(found) == ["numpy"]
    assert "own_loud" not in sys.modules


def test_a_folder_without_an_init_file_is_a_package_too(project: Project) -> None:
    project.write({"own_plain/tools.py": "", "own_plain/more.py": ""})

    found = analyze(by_value("def f(): from own_plain import tools"))

    assert trees(found) == {"own_plain": ["source/own_plain/more.py", "source/own_plain/tools.py"]}


def test_a_function_of_an_own_module_brings_its_module(project: Project) -> None:
    project.write({"own_tasks.py": "import numpy as np\ndef f(x): return np.zeros(x)\n"})

    found = analyze(project.load("own_tasks").f)

    assert trees(found) == {"own_tasks.py": ["source/own_tasks.py"]}
    assert names(found) == ["numpy"]


def test_an_editable_install_travels_as_source_with_its_metadata(
    install: Install, project: Project
) -> None:
    project.write({"own_edit/__init__.py": "", "own_script.py": ""})
    install("needed", {"needed.py": ""})
    install("own-edit", requires=("needed",), editable=project.folder)

    found = analyze(by_value("def f(): import own_edit"))

    assert trees(found) == {"own_edit": ["source/own_edit/__init__.py"]}
    assert names(found) == ["needed", "own-edit"]
    assert names(analyze(by_value("def f(): import own_script"))) == []
    assert [file.name for file in found.distributions[1].files] == [
        "site-packages/own_edit-1.0.dist-info/METADATA",
        "site-packages/own_edit-1.0.dist-info/RECORD",
    ]


def test_a_module_loaded_by_hand_travels_under_its_name(tmp_path: Path) -> None:
    file = tmp_path / "other_name.py"
    file.write_text("def f(): return 1\n")
    spec = importlib.util.spec_from_file_location("by_hand", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["by_hand"] = module
    try:
        spec.loader.exec_module(module)
        found = analyze(module.f)
    finally:
        del sys.modules["by_hand"]

    assert trees(found) == {"by_hand.py": ["source/by_hand.py"]}


def test_a_missing_module_is_an_error_that_names_it_and_its_place() -> None:
    found = analyze(by_value("def f():\n\n  import not_there.inner"))

    assert [needed.module for needed in found.missing] == ["not_there.inner"]
    with pytest.raises(DependencyError, match=r"'not_there.inner', seen in f \(<string>:3\)") as e:
        found.check()
    assert e.value.names == ("not_there.inner",)


def test_a_missing_module_of_an_own_package_is_told(project: Project) -> None:
    project.write(
        {"own_gap/__init__.py": "from . import here\n", "own_gap/here.py": "import own_gap.gone\n"}
    )

    found = analyze(by_value("def f(): import own_gap"))

    assert [needed.module for needed in found.missing] == ["own_gap.gone"]


def test_what_the_function_can_do_without_may_be_missing(project: Project) -> None:
    project.write(
        {
            "own_soft.py": "try:\n  import not_there_a\nexcept ImportError: pass\n"
            "def g():\n  import not_there_b\n"
        }
    )

    found = analyze(
        by_value("def f():\n  import own_soft\n  if own_soft: import not_there_c\n  return 1")
    )

    assert {needed.module for needed in found.missing} == {
        "not_there_a",
        "not_there_b",
        "not_there_c",
    }
    found.check()


def test_a_guarded_import_that_is_here_travels() -> None:
    fn = by_value("def f():\n  try:\n    import numpy\n  except ImportError: pass")

    assert names(analyze(fn)) == ["numpy"]
    assert analyze(fn).preload == ()


def test_a_module_made_at_run_time_is_not_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "made_at_run_time", ModuleType("made_at_run_time"))

    assert analyze(by_value("def f(): import made_at_run_time")).missing == ()


def test_packages_and_modules_that_are_named_come_along(project: Project) -> None:
    project.write({"own_plugin.py": "import rich\n"})

    found = analyze(by_value("def f(): pass"), packages=["NumPy"], modules=["own_plugin"])

    assert names(found) == ["markdown-it-py", "mdurl", "numpy", "Pygments", "rich"]
    assert list(trees(found)) == ["own_plugin.py"]


def test_a_package_that_is_not_installed_is_an_error() -> None:
    with pytest.raises(DependencyError, match="pip install not-installed-at-all"):
        analyze(len, packages=["not-installed-at-all"])
    with pytest.raises(DependencyError, match="not a requirement"):
        analyze(len, packages=["!"])


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match="a function is needed"):
        analyze(3)  # type: ignore[arg-type]


def test_the_same_function_is_looked_at_once_until_a_global_is_another_one() -> None:
    fn = by_value("def g(): pass\ndef f(): return g()")

    first = analyze(fn)
    assert analyze(fn) is first
    exec("def g(): import numpy", fn.__globals__)
    assert names(analyze(fn)) == ["numpy"]


def test_lambdas_of_one_line_are_looked_at_once_unless_they_hold_other_functions() -> None:
    def make(held: object) -> Any:
        return lambda: held

    assert analyze(make(1)) is analyze(make(2))
    assert names(analyze(make(by_value("def f(): import numpy")))) == ["numpy"]
    assert analyze(make([1])) is not analyze(make([2]))


def test_what_is_imported_ahead_is_told_without_reading_metadata(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write({"own_lib.py": "import numpy.linalg\ndef g():\n  import psutil\n"})
    fn = by_value("def f():\n  import rich, json, own_lib\n  return own_lib")
    expected = analyze(fn).preload
    monkeypatch.setattr(Installed, "__init__", None)

    assert look_ahead(fn).preload == expected == ("numpy.linalg", "rich")


def test_an_edited_module_is_noticed_with_the_next_new_function(project: Project) -> None:
    project.write({"own_edited.py": "import json\n"})
    assert names(analyze(by_value("def f(): import own_edited"))) == []

    project.write({"own_edited.py": "import numpy, json\n"})
    found = analyze(by_value("def f():\n  import own_edited"))

    assert names(found) == ["numpy"]


def test_a_file_too_large_to_travel_with_code_is_left_out_and_told(project: Project) -> None:
    project.write({"own_heavy/__init__.py": ""})
    with open(project.folder / "own_heavy" / "model.bin", "wb") as file:
        file.truncate((50 << 20) + 1)

    found = analyze(by_value("def f(): import own_heavy"))

    assert trees(found) == {"own_heavy": ["source/own_heavy/__init__.py"]}
    assert "model.bin (50.0 MiB) is too large to travel with code: if" in found.notes[0]


def test_machine_code_travels_however_large_and_is_told(project: Project) -> None:
    project.write({"own_machine/__init__.py": ""})
    with open(project.folder / "own_machine" / "core.so", "wb") as file:
        file.truncate((50 << 20) + 1)

    found = analyze(by_value("def f(): import own_machine"))

    assert trees(found)["own_machine"][-1] == "source/own_machine/core.so"
    assert "core.so (50.0 MiB) travels with the code: it is machine code" in found.notes[0]


def test_links_inside_a_package_are_followed_and_none_that_leads_out(
    project: Project, tmp_path: Path
) -> None:
    project.write({"own_links/__init__.py": "", "own_links/real/table.txt": "1"})
    package = project.folder / "own_links"
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "key.txt").write_text("secret")
    (package / "data").symlink_to(package / "real")
    (package / "loop").symlink_to(package)
    (package / "dangling").symlink_to(package / "nowhere")
    (package / "home").symlink_to(tmp_path / "private")
    (package / "key.txt").symlink_to(tmp_path / "private" / "key.txt")

    found = analyze(by_value("def f(): import own_links"))

    (tree,) = found.local
    assert [file.name for file in tree.files] == [
        "source/own_links/__init__.py",
        "source/own_links/data/table.txt",
        "source/own_links/real/table.txt",
    ]
    assert tree.left_out == (
        f"{package}/home leads out of the package",
        f"{package}/key.txt leads out of the package",
    )
    assert f"{package}/home leads out" in found.notes[0]


def test_locating_a_module_stops_where_it_is_not_found() -> None:
    assert [part.name for part in locate("numpy.linalg.nothing.there")] == ["numpy", "numpy.linalg"]
    assert locate("not_there") == ()
    assert locate("sys") == ()


def test_reasons_name_the_import_or_what_requires_it(install: Install, project: Project) -> None:
    install("top", {"top.py": ""}, requires=("mid",))
    install("mid", {"mid.py": ""}, requires=("low",))
    install("low", {"low.py": ""})
    install("asked", {"asked.py": ""})
    project.write({"own_why.py": "import top\n"})

    found = analyze(by_value("def f():\n  import own_why"), packages=["asked"])

    assert found.reasons == {
        "asked": "packages=",
        "low": "mid requires it",
        "mid": "top requires it",
        "own_why.py": "own_why, seen in f (<string>:2)",
        "top": "top, seen in own_why (own_why.py:1)",
    }


def test_a_distribution_that_was_changed_on_the_disk_travels_as_it_is_and_is_told(
    install: Install,
) -> None:
    site = install("edited", {"edited.py": "x = 1\n", "gone.py": "", "whole.py": "y = 1\n"})
    (site / "edited.py").write_text("x = 1 + 1\n")
    (site / "gone.py").unlink()

    found = analyze(by_value("def f(): import edited"))

    (edited,) = found.distributions
    assert edited.changed == ("edited.py", "gone.py")
    assert [file.size for file in edited.files if file.name.endswith("edited.py")] == [10]
    assert found.notes == (
        "edited 1.0 is not as it was installed, and travels as it is: edited.py, gone.py "
        "changed or gone",
    )


def test_the_user_is_told_when_much_travels(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dependencies, "LARGE", 2000)
    install("small", {"small.py": "x" * 500}, requires=("large",))
    install("large", {"large.bin": "x" * 1400})

    (note,) = analyze(by_value("def f(): import small")).notes

    assert note.startswith("2.")
    assert note.endswith("KiB travel to each node, of which 1.7 KiB are large")


def test_requirements_are_lines_that_pip_accepts(install: Install, tmp_path: Path) -> None:
    install("Some.Name_x", {"some_x.py": ""}, version="1.0+local.1")
    install("epoch", {"epoch.py": ""}, version="2!1.0rc1")
    install("old", {"old.py": ""}, version="2.6.0-git~5")

    lines = analyze(by_value("def f(): import some_x, epoch, numpy, old")).requirements()

    parsed = [Requirement(line) for line in lines]
    assert [str(each.specifier) for each in parsed] == [
        "==2!1.0rc1",
        f"=={importlib.metadata.version('numpy')}",
        "===2.6.0-git~5",
        "==1.0+local.1",
    ]
    assert [each.name for each in parsed] == ["epoch", "numpy", "old", "Some.Name_x"]


@pytest.mark.slow
def test_pip_finds_installed_what_is_required(tmp_path: Path) -> None:
    found = analyze(by_value("def f(): import numpy, google.protobuf, yaml, asyncssh"))
    lines = tmp_path / "requirements.txt"
    lines.write_text("\n".join(found.requirements()))

    pip = [sys.executable, "-I", "-m", "pip", "install", "--dry-run", "--no-deps", "--no-index"]
    done = subprocess.run([*pip, "-r", str(lines)], capture_output=True, text=True, timeout=60)

    if "No module named pip" in done.stderr:
        pytest.skip("pip is not installed here")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Requirement already satisfied") == len(found.requirements()) > 5


FINDER = """
import subprocess
import sys
from importlib.util import spec_from_file_location

class Finder:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == "own_mapped":
            return spec_from_file_location(
                name, {file!r}, submodule_search_locations=[{folder!r}]
            )

sys.meta_path.append(Finder)
"""


def test_an_editable_install_with_an_import_hook_travels_as_source(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "work" / "own-mapped"
    package = project / "src" / "mapped"  # not called as it is imported
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from . import inner\n")
    (package / "inner.py").write_text("import mdurl\n")
    install("own-mapped", editable=project)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    exec(FINDER.format(file=str(package / "__init__.py"), folder=str(package)), {})

    found = analyze(by_value("def f(): import own_mapped"))

    assert trees(found) == {
        "own_mapped": ["source/own_mapped/__init__.py", "source/own_mapped/inner.py"]
    }
    assert names(found) == ["mdurl", "own-mapped"]


def test_a_develop_install_travels_as_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "old"
    (project / "own_old").mkdir(parents=True)
    (project / "own_old" / "__init__.py").write_text("")
    (project / "setup.py").write_text("")
    info = project / "own_old.egg-info"
    info.mkdir()
    (info / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: own-old\nVersion: 1\n")
    (info / "top_level.txt").write_text("own_old\n")
    (info / "SOURCES.txt").write_text("setup.py\n")
    monkeypatch.syspath_prepend(str(project))

    found = analyze(by_value("def f(): import own_old"))

    assert trees(found) == {"own_old": ["source/own_old/__init__.py"]}
    assert names(found) == ["own-old"]
    assert {file.name for file in found.distributions[0].files} == {
        f"site-packages/own_old.egg-info/{name}"
        for name in ("PKG-INFO", "SOURCES.txt", "top_level.txt")
    }


POINTS = "{name}-1.0.dist-info/entry_points.txt"


def test_plug_ins_of_what_is_needed_come_along(install: Install, project: Project) -> None:
    install("host", {"hosting.py": ""})
    install(
        "one",
        {"one.py": "", POINTS.format(name="one"): "[host.plugs]\na = one:run\n"},
        requires=("base",),
    )
    install("base", {"base.py": ""})
    install("two", {"two.py": "", POINTS.format(name="two"): "[hosting.more]\nb = two\n"})
    install("far", {"far.py": "", POINTS.format(name="far"): "[far.plugs]\nc = far\n"})
    install("cli", {"cli.py": "", POINTS.format(name="cli"): "[console_scripts]\nhost = cli:f\n"})
    project.write({"own_plug.py": ""})
    install(
        "own-plug",
        {POINTS.format(name="own_plug"): "[host.plugs]\nmine = own_plug:run\n"},
        editable=project.folder,
    )

    found = analyze(by_value("def f(): import hosting"))

    assert names(found) == ["base", "host", "one", "own-plug", "two"]
    assert list(trees(found)) == ["own_plug.py"]
    assert found.reasons["one"] == "one, seen in the entry points host.plugs"
    assert found.preload == ("hosting",)


def test_plug_ins_of_a_group_that_is_looked_up_come_along(
    install: Install, project: Project
) -> None:
    install("one", {"one.py": "", POINTS.format(name="one"): "[a-group]\na = one:run\n"})
    install("two", {"two.py": "", POINTS.format(name="two"): "[other]\nb = two:run\n"})
    project.write(
        {
            "own_lookup.py": "import importlib.metadata\ndef find():\n"
            "  return importlib.metadata.entry_points().select(group='other')\n"
        }
    )
    here = by_value(
        "def f():\n  from importlib.metadata import entry_points\n"
        "  return [each.load() for each in entry_points(group='a-group')]\n"
    )

    assert names(analyze(here)) == ["one"]
    reason = analyze(here).reasons["one"]
    assert reason == "one, seen in the entry points a-group, looked up in f (<string>:1)"
    assert names(analyze(by_value("def f(): import own_lookup"))) == ["two"]


def test_an_extension_module_for_another_python_is_named_with_the_remedy(
    project: Project,
) -> None:
    project.write({"own_fast/__init__.py": "", "own_fast/core.cpython-36m-sparc64-sunos.so": ""})

    with pytest.raises(DependencyError, match=r"build it for \.cpython-.* with this") as caught:
        analyze(by_value("def f(): from own_fast.core import x")).check()

    assert "core.cpython-36m-sparc64-sunos.so" in str(caught.value)
    assert "'own_fast.core', seen in f (<string>:1)" in str(caught.value)


@pytest.mark.parametrize(
    ("stated", "line"),
    [
        (
            {"url": "https://host/r.git", "vcs_info": {"vcs": "git", "commit_id": "a1b2"}},
            "odd @ git+https://host/r.git@a1b2",
        ),
        (
            {"url": "https://host/odd.tar.gz", "archive_info": {}, "subdirectory": "py"},
            "odd @ https://host/odd.tar.gz#subdirectory=py",
        ),
        ({"url": "file:///home/me/odd", "dir_info": {}}, "odd @ file:///home/me/odd"),
        (
            {"url": "file:///home/me/odd", "dir_info": {"editable": True}},
            "odd @ file:///home/me/odd",
        ),
        ({"url": 3, "vcs_info": {}}, "odd==1.0"),
        ("no object", "odd==1.0"),
    ],
)
def test_what_came_from_elsewhere_is_pinned_to_that(
    install: Install, stated: object, line: str
) -> None:
    install("odd", {"odd.py": "", "odd-1.0.dist-info/direct_url.json": json.dumps(stated)})

    found = analyze(by_value("def f(): pass"), packages=["odd"]).requirements()

    assert found == [line]
    Requirement(line)
