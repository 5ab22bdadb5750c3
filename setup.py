"""Builds the C core as a static library with hidden symbols and links the two extension modules to
it.

Everything else about the distribution is in pyproject.toml. The flags of the core are in
native/build.mk.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

PACKAGES = ["liblz4", "libzstd", "snappy", "zlib"]
DEBIAN = "liblz4-dev libzstd-dev libsnappy-dev zlib1g-dev pkg-config"
OUT = Path(os.environ.get("PENSTOCK_BUILD_OUT", "build/release"))


def pkg_config(flag: str) -> list[str]:
    if shutil.which("pkg-config") is None:
        sys.exit(f"setup.py: pkg-config is missing; on Debian or Ubuntu: apt-get install {DEBIAN}")
    result = subprocess.run(
        ["pkg-config", flag, *PACKAGES], capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        sys.exit(
            f"setup.py: {result.stderr.strip()}\n"
            f"setup.py: the libraries are in these Debian packages: apt-get install {DEBIAN}"
        )
    return result.stdout.split()


class BuildExtensions(build_ext):
    """build_ext that first brings the static library up to date."""

    def build_extensions(self) -> None:
        jobs = str(os.cpu_count() or 1)
        subprocess.run(
            ["make", "-s", "-j", jobs, "-f", "native/build.mk", f"OUT={OUT}", "lib"], check=True
        )
        # setuptools does not know the library as a dependency: link again whenever it is newer.
        library = (OUT / "libpenstock_core.a").stat().st_mtime
        built = [Path(self.get_ext_fullpath(one.name)) for one in self.extensions]
        if any(path.exists() and path.stat().st_mtime < library for path in built):
            self.force = True
        super().build_extensions()


def extension(name: str) -> Extension:
    source = "src/" + name.replace(".", "/") + ".pyx"
    return Extension(
        name,
        [source],
        include_dirs=["native", "native/include"],
        extra_objects=[str(OUT / "libpenstock_core.a")],
        extra_compile_args=["-O2", "-std=c11", "-D_GNU_SOURCE", "-fvisibility=hidden"],
        extra_link_args=[*pkg_config("--libs"), "-Wl,--exclude-libs,ALL", "-lpthread"],
    )


setup(
    ext_modules=cythonize(
        [extension("penstock._native"), extension("penstock._codec")],
        language_level=3,
        build_dir="build/cython",
        annotate=False,
    ),
    cmdclass={"build_ext": BuildExtensions},
)
