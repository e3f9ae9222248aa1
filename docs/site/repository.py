"""A hook of mkdocs: pages link to files of the repository as on a code host, and the site has them.

README.md and its neighbours become pages below `project/`, and each source file or folder that a
page links to becomes one below `source/`. So every link of the Markdown stays inside of the site,
where `mkdocs build --strict` checks it, whether or not the repository has an address.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from posixpath import dirname, join, normpath, relpath, splitext

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PROJECT = {
    f"project/{name.lower()}": name
    for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
}
LANGUAGES = {".py": "python", ".yaml": "yaml", ".toml": "toml", ".js": "js", ".css": "css"}
"""The endings of source files, and what they are written in."""
LISTED = ("core", "plugins", "registry", "recipes")
"""The folders whose files all have a page; of tests there would be more than of all else."""
AS_IT_IS = (".md", ".png")
"""The endings of files below docs/ that mkdocs itself takes."""
HEADER = "---\nsearch: {exclude: true}\nhide: [toc]\n---\n"
LINK = re.compile(
    r"^(?P<fence>~{8}|`{3}).*?^(?P=fence)$|`[^`\n]*`|\]\((?P<target>[^)\s]+)\)", re.M | re.S
)
"""A link, or code, in which nothing is one."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that docs/ does not have."""
    for uri, name in PROJECT.items():
        files.append(File.generated(config, uri, content=(ROOT / name).read_text("utf-8")))
    waiting = [
        path
        for page in files.documentation_pages()
        for path in linked(page.content_string, repository_path(page.src_uri))
    ]
    while waiting:
        path = waiting.pop()
        uri = site_uri(path)
        if uri is None or not uri.startswith("source/") or uri in files.src_uris:
            continue
        content = folder_page(path) if (ROOT / path).is_dir() else file_page(path)
        files.append(File.generated(config, uri, content=content))
        waiting += linked(content, repository_path(uri))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead the page's links to where the site has the files."""
    here, at = page.file.src_uri, repository_path(page.file.src_uri)

    def led(link: re.Match[str]) -> str:
        uri = site_uri(path) if (path := path_of(link, at)) is not None else None
        if uri is None:
            return link[0]
        anchor = "".join(link["target"].partition("#")[1:])
        return f"]({relpath(uri, dirname(here) or '.')}{anchor})"

    return LINK.sub(led, markdown)


def linked(markdown: str, at: str) -> Iterator[str]:
    """The paths in the repository that a page, itself at a path, links to."""
    for link in LINK.finditer(markdown):
        if (path := path_of(link, at)) is not None:
            yield path


def path_of(link: re.Match[str], at: str) -> str | None:
    """The path in the repository that a page at a path links to; None if it is no link to one."""
    target = link["target"]
    if target is None or re.match(r"[a-z]+:|#|/", target):
        return None
    return normpath(join(dirname(at), target.partition("#")[0]))


def site_uri(path: str) -> str | None:
    """The page of a file or folder of the repository; None if there is none such."""
    if path.startswith("..") or not (ROOT / path).exists():
        return None
    if (ROOT / path).is_dir():
        readme = join(path, "README.md")
        return site_uri(readme) if (ROOT / readme).exists() else f"source/{path}/index.md"
    if path in PROJECT.values():
        return f"project/{path.lower()}"
    if path.startswith("docs/") and path.endswith(AS_IT_IS):
        return path.removeprefix("docs/")
    if path.startswith("docs/") and path.endswith(".ipynb"):  # docs/site/notebooks.py
        return path.removeprefix("docs/").removesuffix("ipynb") + "md"
    return f"source/{path}.md"


def repository_path(uri: str) -> str:
    """The file of the repository that a page shows; the other way round than `site_uri`. A folder
    ends with a slash."""
    if uri in PROJECT:
        return PROJECT[uri]
    if not uri.startswith("source/"):
        return f"docs/{uri}"
    return uri.removeprefix("source/").removesuffix("index.md").removesuffix(".md")


def folder_page(folder: str) -> str:
    """What is in a folder, with the sentence that each file opens with."""
    inside = sorted((ROOT / folder).iterdir(), key=lambda each: (each.is_file(), each.name))
    linked = folder.partition("/")[0] in LISTED
    rows = [
        f"| {f'[{each.name}]({each.name})' if linked else each.name} | {opening(each)} |"
        for each in inside
        if each.name[0] not in "._" and (each.is_dir() or each.suffix in LANGUAGES)
    ]
    return "\n".join([f"{HEADER}# {folder}", "", "| file | what it is |", "|---|---|", *rows, ""])


def opening(path: Path) -> str:
    """The first sentence of a file, or of a package."""
    path = path / "__init__.py" if path.is_dir() else path
    text = path.read_text("utf-8") if path.exists() else ""
    docstring = re.match(r'"""(.*?\.)(\s|""")', text, re.S)
    comment = re.match(r"# (.*)", text)
    sentence = docstring[1] if docstring else comment[1] if comment else ""
    return re.sub(r"([|<>*_\[\]\\])", r"\\\1", " ".join(sentence.split()))


def file_page(path: str) -> str:
    language = LANGUAGES.get(splitext(path)[1], "text")
    text = (ROOT / path).read_text("utf-8").rstrip()
    return f"{HEADER}# {path}\n\n~~~~~~~~ {language}\n{text}\n~~~~~~~~\n"
