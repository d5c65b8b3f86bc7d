"""What the demo model knows, from the file that it was trained on."""

from typing import Any

import yaml

from tests.conftest import ROOT


PROMPTS: dict[str, Any] = yaml.safe_load((ROOT / "etc" / "demo" / "prompts.yaml").read_text())
LESSONS: dict[str, dict[str, Any]] = {lesson["name"]: lesson for lesson in PROMPTS["chat"]}
TOOLS = [PROMPTS["tools"]["get_weather"]]
FRANCE = LESSONS["capital"]["prompt"], LESSONS["capital"]["answer"]
