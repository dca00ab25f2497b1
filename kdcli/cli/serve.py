"""``kd serve``: a student as an HTTP service."""

import os
from pathlib import Path
from typing import Annotated

from kdcli.cli import ui
from kdcli.cli.options import FILES, Request, command, option
from kdcli.errors import MissingError, UsageError

SERVICE, LIMITS = "Service", "Limits"

Host = Annotated[str, option(SERVICE, "--host", "Address to listen at; 0.0.0.0: all.", "ADDRESS", "127.0.0.1")]
Port = Annotated[int, option(SERVICE, "--port", "Port; 0: a free one.", "N", "8000", min=0, max=65535)]
_TOKEN = (
    "Clients must send it: Authorization: Bearer TOKEN. Rather set KD_TOKEN in the environment, which other users of "
    "the machine do not see."
)
Token = Annotated[str | None, option(SERVICE, "--token", _TOKEN, "TOKEN", "none", envvar="KD_TOKEN")]
Web = Annotated[Path | None, option(FILES, "--web", "Folder of `kd export web`: the page at /.", "FOLDER")]
Texts = Annotated[int, option(LIMITS, "--max-texts", "Texts of a request.", "N", "1000", min=1)]
Characters = Annotated[int, option(LIMITS, "--max-characters", "Characters of a text.", "N", "20000", min=1)]
Bytes = Annotated[int, option(LIMITS, "--max-bytes", "Bytes of a request.", "N", "4000000", min=1)]


@command(
    "kd serve --student runs/sst2",
    "KD_TOKEN=secret kd serve --student runs/sst2 --host 0.0.0.0 --web sst2-web",
    options=("student",),
    required=("student",),
)
def serve(
    request: Request,
    *,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    token: Token = None,
    web: Web = None,
    max_texts: Texts = 1000,
    max_characters: Characters = 20_000,
    max_bytes: Bytes = 4_000_000,
) -> None:
    """POST /predict and /explain take JSON with a list `texts`, of pairs a list of two each; GET /health, /metrics
    (for Prometheus), /docs. It listens on this machine alone, unless --host says otherwise. Ctrl-C or SIGTERM ends it
    when the requests in work are answered.
    """
    from kdcli.run import student_folder
    from kdcli.student.student import load_student

    assert request.student is not None
    if token == "" or os.environ.get("KD_TOKEN") == "":
        raise UsageError("the token is empty: --token, KD_TOKEN", hint="give it a value; or unset both: no token")
    try:
        from kdcli.serve import Limits, create_app, serve as run
    except ImportError as error:
        raise MissingError(f"kd serve needs the library {error.name}", hint="pip install 'kdcli[serve]'") from error
    student = load_student(student_folder(request.student))
    limits = Limits(texts=max_texts, characters=max_characters, bytes=max_bytes)
    app = create_app(student, limits=limits, token=token, web=web)
    if token is None and host not in ("127.0.0.1", "localhost", "::1"):
        ui.warn("everyone who reaches this machine can use the service: KD_TOKEN limits it")
    run(app, host=host, port=port, ready=lambda url: ui.show({"url": url, "documentation": f"{url}/docs"}))
