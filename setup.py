"""Builds the compiled kernels; everything else is in pyproject.toml.

The sources in src_kernels/ are compiled once for each instruction set of
`INSTRUCTION_SETS`, each time into a namespace of its own, and linked into one
extension module that picks among them when it is imported. FASTDL_NO_EXT=1
leaves the extension out.
"""

import os
import platform
import shutil
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError
from setuptools.modified import newer_group

SOURCES = Path("src_kernels")
#: Compiled once for each instruction set.
FAMILIES = (
    "activation.cpp",
    "algorithm.cpp",
    "channels_last_backward.cpp",
    "channels_last_conv.cpp",
    "channels_last_depthwise.cpp",
    "channels_last_norm.cpp",
    "channels_last_pool.cpp",
    "columns.cpp",
    "conv.cpp",
    "conv_backward.cpp",
    "conv_rows.cpp",
    "depthwise.cpp",
    "depthwise_lanes.cpp",
    "depthwise_planes.cpp",
    "filter_lanes.cpp",
    "limits.cpp",
    "linear.cpp",
    "matrix_product.cpp",
    "norm.cpp",
    "optimizer.cpp",
    "pool.cpp",
    "softmax.cpp",
    "table.cpp",
    "winograd.cpp",
    "winograd_weight.cpp",
)
#: Compiled once, for the processor that every binary must run on.
BASELINE_SOURCES = ("dispatch.cpp", "memory.cpp", "output_memory.cpp", "processors.cpp")

_X86 = platform.machine().lower() in ("x86_64", "amd64")
#: Name (also the C++ namespace) and compiler flags, from the lowest up.
INSTRUCTION_SETS: dict[str, list[str]] = {"baseline": []}
if _X86:
    INSTRUCTION_SETS["avx2"] = ["-mavx2", "-mfma"]
    INSTRUCTION_SETS["avx512"] = [
        *("-mavx2", "-mfma", "-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl"),
        "-mprefer-vector-width=512",
    ]

COMPILE_FLAGS = [
    *("-std=c++17", "-O3", "-fopenmp", "-ffp-contract=fast", "-fno-math-errno"),
    # The only promise given up is that of floating-point traps; NaN and infinity stay.
    *("-fno-trapping-math", "-fno-exceptions", "-fno-rtti", "-fvisibility=hidden"),
    *("-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Wno-psabi"),
    # Debugging information, which Python's own flags ask for, is six times the size of the kernels.
    # CXXFLAGS=-g brings it back.
    "-g0",
]

HELP_COMPILER = (
    "fastdl's compiled kernels need a C++17 compiler (GCC 9 or later, or Clang 10 or later).\n"
    "  Debian, Ubuntu:  apt install g++\n"
    "  Fedora:          dnf install gcc-c++\n"
    "Or install without them, on Numba and NumPy alone:  FASTDL_NO_EXT=1 pip install ."
)
HELP_HEADERS = (
    "fastdl's compiled kernels need Python's header Python.h, which is not where this Python\n"
    "says it is ({path}).\n"
    "  Debian, Ubuntu:  apt install python3-dev\n"
    "  Fedora:          dnf install python3-devel\n"
    "Or install without them, on Numba and NumPy alone:  FASTDL_NO_EXT=1 pip install ."
)
HELP_OPENMP = (
    "fastdl's compiled kernels need OpenMP, and this compiler ({compiler}) cannot build a\n"
    "program with -fopenmp.\n"
    "  GCC:             comes with it (Debian, Ubuntu: apt install g++)\n"
    "  Clang on Debian: apt install libomp-dev\n"
    "Or install without them, on Numba and NumPy alone:  FASTDL_NO_EXT=1 pip install ."
)


class BuildKernels(build_ext):
    """Compiles every kernel family for every instruction set."""

    def build_extension(self, ext):
        self._check_tools()
        flags = [*COMPILE_FLAGS, *os.environ.get("CXXFLAGS", "").split()]
        jobs = [
            (name, family, [*flags, *isa_flags, f"-DFASTDL_ISA={name}"])
            for name, isa_flags in INSTRUCTION_SETS.items()
            for family in FAMILIES
        ]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(lambda job: self._compile(*job), jobs))
        ext.extra_objects = objects
        super().build_extension(ext)

    def _compile(self, isa, source, flags):
        path, folder = str(SOURCES / source), os.path.join(self.build_temp, isa)
        (compiled,) = self.compiler.object_filenames([path], output_dir=folder)
        headers = [str(header) for header in SOURCES.glob("*.h")]
        if self.force or newer_group([path, *headers, __file__], compiled):
            self.compiler.compile(
                [path], output_dir=folder, include_dirs=[str(SOURCES)], extra_postargs=flags
            )
        return compiled

    def _check_tools(self):
        """Stop with what to install, before the compiler says it less clearly."""
        include = sysconfig.get_path("include")
        if not Path(include, "Python.h").exists():
            raise SystemExit(HELP_HEADERS.format(path=include))
        compiler = getattr(self.compiler, "compiler_so_cxx", self.compiler.compiler_so)[0]
        if shutil.which(compiler) is None:
            raise SystemExit(f"{HELP_COMPILER}\n(looked for: {compiler})")
        with tempfile.TemporaryDirectory() as folder:
            probe = Path(folder, "probe.cpp")
            program = "#include <cstdlib>\n#include <omp.h>\nint main() { return omp_get_max_threads() < 1; }\n"
            probe.write_text(program)
            try:
                objects = self.compiler.compile(
                    [str(probe)], output_dir=folder, extra_postargs=["-std=c++17", "-fopenmp"]
                )
                self.compiler.link_executable(
                    objects, "probe", output_dir=folder, extra_postargs=["-fopenmp"],
                    target_lang="c++",
                )  # fmt: skip
            except (CompileError, LinkError):
                raise SystemExit(HELP_OPENMP.format(compiler=compiler)) from None


def extensions():
    """The one extension module, or none where it is not wanted."""
    if os.environ.get("FASTDL_NO_EXT", "") not in ("", "0"):
        return []
    import numpy
    from Cython.Build import cythonize

    kernels = Extension(
        "fastdl.backends.compiled._kernels",
        [str(SOURCES / "_kernels.pyx"), *(str(SOURCES / name) for name in BASELINE_SOURCES)],
        include_dirs=[str(SOURCES), numpy.get_include()],
        define_macros=[
            ("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION"),
            ("FASTDL_X86", str(int(_X86))),
        ],
        # Cython's own code is not held to our warnings.
        extra_compile_args=[f for f in COMPILE_FLAGS if f not in ("-fno-exceptions", "-Wextra")],
        extra_link_args=["-fopenmp"],
        depends=[str(path) for path in (*SOURCES.glob("*.h"), *SOURCES.glob("*.cpp"))],
        language="c++",
    )
    return cythonize([kernels], language_level=3, build_dir="build/cython")


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildKernels})
