"""A patch of a test's own behind those of a series."""

import difflib


def add_patch(folder, variant, version, changes):
    """Append a patch to the series in `folder`, as the variant `variant` for a release.

    `changes` maps a file to its text before (None: a new file) and after.
    """
    folder.mkdir(exist_ok=True)
    header = (
        f"Subject: {variant}, for tests\nVariant: {variant}\nPins: {version}\n"
        "Upstream: none\nRemove-when: never\n\nFor tests.\n---\n"
    )
    name = f"0099-{variant}.patch"
    diffs = (_diff(file, before, after) for file, (before, after) in changes.items())
    (folder / name).write_text(header + "".join(diffs))
    with (folder / "series").open("a") as order:
        order.write(f"{name}\n")


def _diff(name, before, after):
    old = "/dev/null" if before is None else f"a/{name}"
    lines = difflib.unified_diff(
        (before or "").splitlines(keepends=True), after.splitlines(keepends=True), old, f"b/{name}"
    )
    mode = "new file mode 100644\n" if before is None else ""
    return f"diff --git a/{name} b/{name}\n{mode}" + "".join(lines)
