"""Nodes out of strings and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from afarm.transport.command import CommandNode
from afarm.transport.hosts import expand, load_nodes, parse_node
from afarm.transport.local import LocalNode
from afarm.transport.memory import MemoryNode
from afarm.transport.ssh import SSHNode


@pytest.mark.parametrize(
    ("spec", "node"),
    [
        ("local", LocalNode()),
        ("lab1", SSHNode("lab1")),
        ("alice@lab2:2222", SSHNode("lab2", user="alice", port=2222)),
        ("lab1.example.org:22", SSHNode("lab1.example.org", port=22)),
        ("[::1]", SSHNode("::1")),
        ("bob@[fe80::1%eth0]:22", SSHNode("fe80::1%eth0", user="bob", port=22)),
        (" 10.0.0.1 ", SSHNode("10.0.0.1")),
    ],
)
def test_a_string_names_a_node(spec: str, node: object) -> None:
    assert parse_node(spec) == node


@pytest.mark.parametrize(
    "spec", ["", "a b", "lab1:", "lab1:port", "::1", "[::1", "@lab1", "a@b@c", "lab1:99999", "-oX"]
)
def test_a_string_that_names_none_is_an_error_that_says_what_is_expected(spec: str) -> None:
    with pytest.raises(ValueError, match=r"expected|name of a host|from 1 to 65535"):
        parse_node(spec)


def test_a_list_of_names_takes_settings_and_comments(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_text(
        "# the lab\n"
        "lab1\n"
        "\n"
        "alice@lab2:2222  cores=8 memory=16G   # shared\n"
        "[::1]:22 labels=gpu,big keys=id scratch='/data/my scratch'\n"
        "local cores=1.5\n"
    )
    assert load_nodes(file) == [
        SSHNode("lab1"),
        SSHNode("lab2", user="alice", port=2222, cores=8.0, memory="16G"),
        SSHNode(
            "::1",
            port=22,
            labels=("gpu", "big"),
            keys=tmp_path / "id",
            scratch="/data/my scratch",
        ),
        LocalNode(cores=1.5),
    ]


def test_toml_has_tables_and_lists(tmp_path: Path) -> None:
    file = tmp_path / "farm.toml"
    file.write_text(
        'nodes = ["lab1", {host = "lab2", cores = 4}]\n'
        "[[node]]\n"
        'host = "alice@lab3:2222"\n'
        'memory = "16 GiB"\n'
        'config = "ssh_config"\n'
        "[[node]]\n"
        'kind = "local"\n'
        "[[node]]\n"
        'kind = "command"\n'
        'argv = ["docker", "exec", "-i", "box"]\n'
        "shell = false\n"
    )
    assert load_nodes(str(file)) == [
        SSHNode("lab1"),
        SSHNode("lab2", cores=4.0),
        SSHNode("lab3", user="alice", port=2222, memory="16 GiB", config=tmp_path / "ssh_config"),
        LocalNode(),
        CommandNode(["docker", "exec", "-i", "box"]),
    ]


def test_toml_tables_may_be_named(tmp_path: Path) -> None:
    file = tmp_path / "farm.toml"
    file.write_text(
        "[node.lab1]\ncores = 2\n"
        '[node.fast]\nhost = "lab2"\nlabels = ["gpu"]\n'
        '[node.here]\nkind = "local"\n'
    )
    assert load_nodes(file) == [
        SSHNode("lab1", cores=2.0),
        SSHNode("lab2", name="fast", labels=("gpu",)),
        LocalNode(name="here"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("hosts", "lab1\n\nlab2 core=2\n", "line 3: unknown setting 'core': expected one of host"),
        ("hosts", "lab1 fast\n", "line 1: 'fast' is not a setting: expected key=value"),
        ("hosts", "lab1 cores=many\n", "line 1: cores='many': expected a number"),
        ("hosts", "lab1 memory=many\n", "line 1: 'many' is not a size"),
        ("hosts", "lab1 'open\n", "line 1: No closing quotation"),
        ("hosts", "a:b:c\n", "line 1: 'a:b:c' is not a node: expected 'local'"),
        ("hosts", "# nothing\n", "no nodes in it"),
        ("farm.toml", "nodes = [\n", "farm.toml: Invalid value"),
        ("farm.toml", "host = 'lab1'\n", "unknown key 'host'"),
        ("farm.toml", "nodes = 'lab1'\n", "'nodes' is a list"),
        ("farm.toml", "node = 3\n", "'node' is a table"),
        ("farm.toml", "[node]\nhost = 'lab1'\n", "one node alone is"),
        ("farm.toml", "nodes = [3]\n", "nodes, number 1: 3 is neither a name nor a table"),
        ("farm.toml", "[[node]]\nkind = 'cloud'\n", "expected one of 'ssh', 'local', 'command'"),
        ("farm.toml", "[[node]]\ncores = 2\n", "number 1: a node of kind 'ssh' needs 'host'"),
        ("farm.toml", "[[node]]\nhost = 'a'\nport = 2.5\n", "port=2.5: expected a number"),
        ("farm.toml", "[[node]]\nhost = 'a'\nport = true\n", "port=True: expected a number"),
        ("farm.toml", "[[node]]\nhost = 'a'\nscratch = 3\n", "scratch=3: expected a string"),
        ("farm.toml", "[[node]]\nkind = 'command'\nargv = [1]\n", "expected a list of strings"),
        ("farm.toml", "[[node]]\nkind = 'local'\nport = 2\n", "unknown setting 'port'"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_its_place(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(ValueError) as caught:
        load_nodes(file)
    assert str(file) in str(caught.value)
    assert words in str(caught.value)


def test_nothing_stands_for_this_machine() -> None:
    assert expand(None) == [LocalNode()]


def test_strings_files_and_nodes_may_be_mixed(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("lab1\nlab2\n")
    toml = tmp_path / "farm.toml"
    toml.write_text('nodes = ["lab3"]\n')
    nodes: list[Any] = ["local", hosts, str(hosts), toml, SSHNode("lab4", name="four")]
    names = [node.name for node in expand(nodes)]
    assert names == ["local", "lab1", "lab2", "lab1-2", "lab2-2", "lab3", "four"]


def test_one_node_needs_no_list(tmp_path: Path) -> None:
    toml = tmp_path / "farm.toml"
    toml.write_text('nodes = ["lab3"]\n')
    assert expand("lab1") == [SSHNode("lab1")]
    assert expand(LocalNode(2)) == [LocalNode(2)]
    assert expand(toml) == expand(str(toml)) == [SSHNode("lab3")]


def test_names_that_occur_again_are_numbered_without_taking_another() -> None:
    nodes = expand(["lab1", SSHNode("x", name="lab1-2"), "lab1", "lab1"])
    assert [node.name for node in nodes] == ["lab1", "lab1-2", "lab1-3", "lab1-4"]


def test_any_object_that_can_connect_is_a_node() -> None:
    memory = MemoryNode(lambda connection: connection.other.receiver)
    assert [node.name for node in expand([memory, memory])] == ["memory", "memory-2"]


@pytest.mark.parametrize("nodes", [3, [3], [None], [LocalNode], object()])
def test_what_is_no_node_is_a_type_error(nodes: Any) -> None:
    with pytest.raises(TypeError, match="is not a node"):
        expand(nodes)


def test_a_file_that_is_not_there_says_so() -> None:
    with pytest.raises(FileNotFoundError):
        expand("./no-such-file")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SSHNode(""), "not the name of a host"),
        (lambda: SSHNode("-oProxyCommand=x"), "not the name of a host"),
        (lambda: SSHNode("a@b"), "names a user too"),
        (lambda: SSHNode("a", port=0), "from 1 to 65535"),
        (lambda: SSHNode("a", python="it's"), "every shell"),
        (lambda: SSHNode("a", memory="lots"), "not a size"),
        (lambda: LocalNode(cores=0), "some cores"),
        (lambda: LocalNode(gpus=-1), "gpus=-1"),
        (lambda: CommandNode([]), "argv"),
        (lambda: CommandNode("docker exec -i box"), "in a list"),
    ],
)
def test_arguments_are_checked_when_a_node_is_made(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    ("node", "text"),
    [
        (LocalNode(), "LocalNode()"),
        (LocalNode(2, name="here"), "LocalNode(cores=2, name='here')"),
        (SSHNode("lab1", port=22, labels=["gpu"]), "SSHNode('lab1', port=22, labels=('gpu',))"),
        (CommandNode(["srun"], shell=True), "CommandNode(('srun',), shell=True)"),
    ],
)
def test_a_node_prints_as_it_would_be_written(node: object, text: str) -> None:
    assert repr(node) == text


def test_a_file_may_begin_with_a_byte_order_mark_and_have_the_lines_of_windows(
    tmp_path: Path,
) -> None:
    path = tmp_path / "hosts"
    path.write_bytes(b"\xef\xbb\xbflab1\r\n# shared\r\nlab2\r\n")
    assert [node.name for node in load_nodes(path)] == ["lab1", "lab2"]


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_bytes(b"\xff\xfe\x00lab1")
    with pytest.raises(ValueError, match="hosts is not text in UTF-8"):
        load_nodes(path)
