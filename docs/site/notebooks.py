"""A hook of mkdocs: a notebook becomes a page, with the outputs that are stored in it."""

from __future__ import annotations

from collections.abc import Iterator

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for file in list(files):
        if file.src_uri.endswith(".ipynb"):
            files.remove(file)
            page = nbformat.reads(file.content_string, as_version=4)
            uri = file.src_uri.removesuffix("ipynb") + "md"
            files.append(File.generated(config, uri, content="\n\n".join(parts(page))))
    return files


def parts(notebook: nbformat.NotebookNode) -> Iterator[str]:
    """The cells as Markdown: code in a block, and what it gave below."""
    for cell in notebook.cells:
        if cell.cell_type != "code":
            yield cell.source
        elif cell.source:
            yield block("python", cell.source)
            yield from (shown(each) for each in cell.outputs if each.get("name") != "stderr")


def shown(output: nbformat.NotebookNode) -> str:
    """The richest form of an output: a picture, else a table or other HTML, else text."""
    if output.output_type == "stream":
        return block("text", output.text)
    if output.output_type == "error":
        return block("text", f"{output.ename}: {output.evalue}")
    data = output.data
    if "image/png" in data:
        picture = "".join(data["image/png"].split())
        return f'<img alt="output of the cell above" src="data:image/png;base64,{picture}">'
    if "text/html" in data:
        html = data["text/html"].replace('<table border="1" class="dataframe">', "<table>")
        lines = [line.strip() for line in html.splitlines() if line.strip()]
        return "<div class='output'>" + "\n".join(lines) + "</div>"
    return block("text", data.get("text/plain", ""))


def block(language: str, text: str) -> str:
    return f"~~~~~~~~ {language}\n{text.rstrip()}\n~~~~~~~~"
