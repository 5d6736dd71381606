"""The README files agree with the code, and continuous integration runs the main README's own command."""

import ast
import importlib.util
import re
import subprocess
import sys
from collections import Counter
from dataclasses import fields

import pytest
from conftest import ROOT
from torch.distributed.run import get_args_parser

import grpo.compare
import grpo.config
import grpo.dpo_flags
import grpo.evaluation.options
import grpo.explain
import grpo.replay
import grpo.reward_model_flags
import grpo.verifiers.check

README = (ROOT / "README.md").read_text()
COMMANDS = {
    "grpo.train": grpo.config.Config,
    "grpo.doctor": grpo.config.Config,
    "grpo.reward_model": grpo.reward_model_flags.Options,
    "grpo.dpo": grpo.dpo_flags.Options,
    "grpo.evaluate": grpo.evaluation.options.Options,
    "grpo.compare": grpo.compare.Options,
    "grpo.explain": grpo.explain.Options,
    "grpo.replay": grpo.replay.Options,
    "grpo.verifiers": grpo.verifiers.check.Options,
}
COMMAND = re.compile(r"python -m (grpo\.\w+)|(?:^|\s)(scripts/\w+\.\w+)")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CHECKOUT = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="files are listed by git, and this is no checkout")


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


UPDATE = script("update_readme")
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (ROOT / "README.md", *(p for folder in UPDATE.FOLDERS for p in (ROOT / folder).rglob("README.md")))
}
"""Every README -> its text."""
TABLES = [(page, table) for page, tables in UPDATE.PAGES.items() for table in tables]

# Tables ----------------------------------------------------------------------------------------------------------


@CHECKOUT
@pytest.mark.parametrize("page", UPDATE.PAGES)
def test_tables_are_those_of_the_code(page):
    """Algorithms, metrics, flags and files; `python scripts/update_readme.py` writes them."""
    assert UPDATE.render(PAGES[page], UPDATE.PAGES[page]) == PAGES[page]


@CHECKOUT
@pytest.mark.parametrize(("page", "table"), TABLES)
def test_a_wrong_table_would_be_noticed(page, table):
    broken = re.sub(rf"(<!-- {table} -->\n.*\n)", r"\1something else\n", PAGES[page])
    assert broken != PAGES[page] and UPDATE.render(broken, UPDATE.PAGES[page]) == PAGES[page]


def test_every_marked_table_is_written_by_the_script():
    for page, text in PAGES.items():
        assert re.findall(r"<!-- (\w+) -->", text) == list(UPDATE.PAGES.get(page, {})), page


# Commands and flags ----------------------------------------------------------------------------------------------


def test_the_first_command_is_the_main_job():
    first = re.search(r"```bash\n(.*?)\n```", README, flags=re.DOTALL).group(1)
    assert first.endswith("python scripts/install.py && python -m grpo.train --algo dr_grpo")


def test_ci_runs_the_readmes_test_command():
    commands = re.findall(r"```bash\n(.*?)\n```", README, flags=re.DOTALL)
    (command,) = (c for c in commands if c.endswith("python -m pytest"))
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == command


def flags_of(command):
    """The flags of a command of the package or of a script. Raises: where there is no such command."""
    if command.endswith(".sh"):  # which passes them on
        command = "grpo.train"
    if command in COMMANDS:
        return {f"--{field.name.replace('_', '-')}" for field in fields(COMMANDS[command])} | {"--help"}
    text = (ROOT / command).read_text()
    options = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name == "Options"]
    named = {line.target.id for node in options for line in node.body if isinstance(line, ast.AnnAssign)}
    return {f"--{name.replace('_', '-')}" for name in named} | set(re.findall(r'add_argument\("(--\w+)"', text))


def commands_in(text):
    """(command, its flags) of every call in a page's code; after ` -- ` they are flags of grpo.train.

    >>> list(commands_in("`python -m grpo.train --algo grpo`"))
    [('grpo.train', {'--algo'})]
    """
    code = [block.replace("\\\n", " ") for language, block in FENCED.findall(text) if language == "bash"]
    code += [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", FENCED.sub("", text))]
    for call in (call for block in code for line in block.split("\n") for call in line.partition("  #")[0].split("&&")):
        if found := COMMAND.search(call):
            own, _, passed_on = call.partition(" -- ")
            yield found[1] or found[2], set(FLAG.findall(own))
            yield "grpo.train", set(FLAG.findall(passed_on))


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_a_page_gives_has_the_flags(page):
    for command, flags in commands_in(PAGES[page]):
        assert flags <= flags_of(command), (command, flags - flags_of(command))


TORCHRUN = {option.replace("_", "-") for action in get_args_parser()._actions for option in action.option_strings}
SLURM = {"--ntasks-per-node", "--kill-on-bad-exit"}


@pytest.mark.parametrize("page", PAGES)
def test_every_flag_that_a_page_names_exists(page):
    scripts = [f"scripts/{path.name}" for path in (ROOT / "scripts").glob("*.py")]
    known = set().union(TORCHRUN, SLURM, *map(flags_of, (*COMMANDS, *scripts)))
    named = set(FLAG.findall(PAGES[page]))
    assert named <= known, named - known


def test_an_unknown_flag_would_be_noticed():
    block = "```bash\nFOO=1 python scripts/learning_table.py --rows grpo -- --bar 1   # --baz\n```\n"
    text = block + "`python -m grpo.explain\n--algo a`"
    assert [c for c in commands_in(text) if c[1]] == [
        ("scripts/learning_table.py", {"--rows"}),
        ("grpo.train", {"--bar"}),
        ("grpo.explain", {"--algo"}),
    ]
    assert "--rows" in flags_of("scripts/learning_table.py") and "--algo" not in flags_of("grpo.explain")


# Links -----------------------------------------------------------------------------------------------------------


def links(text):
    """The targets of a page's links and pictures, those to the web left out."""
    return re.findall(r"\]\(((?!https?:)[^)\s]+)\)", re.sub(r"`[^`]*`", "", FENCED.sub("", text)))


def anchors(text):
    """What a `#...` may name: the headings, as GitHub spells them.

    >>> anchors("# A `b`, c?\n## d\n## d")
    ['a-b-c', 'd', 'd-1']
    """
    made, seen = [], Counter()
    for heading in re.findall(r"^#+ (.+)$", FENCED.sub("", text), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        made.append(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return made


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    for link in links(PAGES[page]):
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


def test_headings_are_spelled_as_github_spells_them():
    assert anchors("# A `b`, c?\n```bash\n# no heading\n```\n## D 2\n## D 2") == ["a-b-c", "d-2", "d-2-1"]
    assert links("[a](b.md#c) `[no](link)` ![d](e.png) [f](https://g)") == ["b.md#c", "e.png"]


# What the pages say of the project -------------------------------------------------------------------------------


def test_the_main_readme_is_short():
    assert README.count("\n") <= 230


MISTAKES = script("mutation_run").MISTAKES


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_every_mistake_of_the_mutation_run_can_still_be_made(mistake):
    """Its text is in its file exactly once, and the other text compiles; the run itself takes minutes each."""
    text = (ROOT / "grpo" / mistake.file).read_text()
    assert text.count(mistake.right) == 1
    compile(text.replace(mistake.right, mistake.wrong), mistake.file, "exec")


def test_the_page_counts_the_mistakes():
    assert f"puts {len(MISTAKES)} classic mistakes" in PAGES["scripts/README.md"]


def test_tracked_files_name_no_machine():
    listed = subprocess.run(["git", "ls-files", "*.py", "*.md", "*.toml"], cwd=ROOT, capture_output=True, text=True)
    for name in listed.stdout.split():
        text = (ROOT / name).read_text()
        assert not re.search(r"/(root|home/\w+|work|opt)/", text) or name == "tests/test_readme.py", name
