"""The pages of the API: which modules mkdocstrings describes on which page."""

import ast
from pathlib import Path


def api_pages(package: Path) -> dict[str, str]:
    """{address: Markdown} of a page for each package and each module beside packages.

    Modules with a leading underscore are left out, as are those without a public function or class,
    and the command line.

    Args:
        package: folder of the package.
    """
    folders = {package, *(path.parent for path in package.rglob("__init__.py"))}
    pages: dict[str, str] = {}
    for folder in sorted(folders - {package / "cli"}):
        modules = [path for path in sorted(folder.glob("[!_]*.py")) if _public_names(path)]
        if folder == package:
            pages |= {f"api/{path.stem}.md": _page(path, [path], package) for path in modules}
        else:
            address = f"api/{'.'.join(folder.relative_to(package).parts)}.md"
            if modules:
                pages[address] = _page(folder / "__init__.py", modules, package)
    lines = [
        f"| [{_name(page)}]({page[4:]}) | {_sentence(package, page)} |"
        for page in sorted(pages, key=_name)
    ]
    pages["api/index.md"] = _INDEX + "\n".join(lines) + "\n"
    return pages


_INDEX = """# API

The public names of `keras_medseg`; what begins with an underscore may change at any time. After
`import keras_medseg`, the functions `build`, `describe` and `list_models` of
[registry](registry.md) and the modules `losses`, `optimizers`, `porting` and `recipe` are at hand
as `keras_medseg.build` and so on.

| page | what is there |
|---|---|
"""


def _page(described: Path, modules: list[Path], package: Path) -> str:
    name = _dotted(described, package)
    words = ast.get_docstring(ast.parse(described.read_text())) or ""
    if described in modules:
        return f"# {name}\n\n::: {name}\n    options:\n      show_root_heading: false\n"
    members = "\n\n".join(f"::: {_dotted(path, package)}" for path in modules)
    return f"# {name}\n\n{words}\n\n{members}\n"


def _dotted(path: Path, package: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def _name(page: str) -> str:
    return page.removeprefix("api/").removesuffix(".md")


def _sentence(package: Path, page: str) -> str:
    path = package.joinpath(*_name(page).split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return (ast.get_docstring(ast.parse(file.read_text())) or "").partition("\n")[0]


def _public_names(path: Path) -> list[str]:
    nodes = ast.parse(path.read_text()).body
    kinds = (ast.FunctionDef, ast.ClassDef)
    return [node.name for node in nodes if isinstance(node, kinds) and node.name[0] != "_"]
