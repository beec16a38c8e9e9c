"""What people call the program behind a User-Agent."""

import re

# Of a name that somebody has made up.
MAX_LENGTH = 40

# The first that matches names the browser; most browsers also claim to be those further down.
_BROWSERS = ("Edg", "OPR", "Firefox", "Chrome", "Safari", "curl", "deepstream")
_BROWSER_NAMES = {"Edg": "Edge", "OPR": "Opera"}
_SYSTEMS = ("Android", "iPhone", "iPad", "Windows", "Mac OS X", "CrOS", "Linux")
_SYSTEM_NAMES = {"Mac OS X": "macOS", "CrOS": "ChromeOS"}


def browser_name(user_agent: str) -> str:
    """Return a name for a User-Agent that its owner recognises, such as `Firefox on Linux`."""
    browser = next((name for name in _BROWSERS if name in user_agent), None)
    system = next((name for name in _SYSTEMS if name in user_agent), None)
    if browser is None:
        return re.split(r"[/ (]", user_agent, maxsplit=1)[0][:MAX_LENGTH] or "Unknown browser"
    name = _BROWSER_NAMES.get(browser, browser)
    return f"{name} on {_SYSTEM_NAMES.get(system, system)}" if system else name
