"""Write ``events.schema.json`` anew: ``python docs/log/schema.py``."""

import json
from pathlib import Path

from checkrein.log.schema import json_schema

if __name__ == "__main__":
    text = json.dumps(json_schema(), indent=1, sort_keys=True) + "\n"
    Path(__file__).with_name("events.schema.json").write_text(text, encoding="utf-8")
