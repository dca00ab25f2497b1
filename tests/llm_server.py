"""A small server of OpenAI's protocol on loopback, which answers by a rule and counts what it is asked."""

import json
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RULES = {"warm": 1.0, "good": 2.0, "clever": 1.5, "lovely": 1.0, "dull": -1.0, "bad": -2.0, "cold": -1.5, "poor": -0.5}


def text_of(prompt):
    return prompt.split("Text: ")[1].split("\n\nAnswer with")[0]


def score_of(text):
    """The logit of the second of two classes."""
    return 0.25 + sum(value for word, value in RULES.items() if word in text.split())


class LLMServer:
    """It knows two classes; ``answer`` may say something else for a text, ``fault`` may break a reply.

    ``fault(number, path)`` returns status, headers and body, or None; ``number`` counts all requests from 1.
    """

    def __init__(self, *, logprobs=True, several=True, samples=True, system_one=False, seconds=0.0, **more):
        self.logprobs, self.several, self.samples, self.system_one = logprobs, several, samples, system_one
        self.seconds, self.answer, self.fault = seconds, more.get("answer"), more.get("fault")
        self.sent, self.bodies, self.keys, self.paths, self.lock = [], [], [], [], threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_):
                pass

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                status, headers, content = outer.reply(self.path, body, self.headers.get("authorization"))
                self.send_response(status)
                for name, value in {"content-length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
                if int(headers.get("content-length", 0)) > len(content):
                    self.close_connection = True

        class Threads(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

        self.server = Threads(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}/v1"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    @property
    def prompts(self):
        return [body["messages"][0]["content"] for body in self.bodies if "messages" in body]

    @property
    def texts(self):
        """The texts of all requests about a class that were answered."""
        return [text_of(prompt) for prompt in self.prompts if "Text: " in prompt]

    def reply(self, path, body, key):
        with self.lock:
            self.sent.append(body)
            self.paths.append(path)
            self.keys.append(key)
            broken = self.fault(len(self.paths), path) if self.fault else None
        time.sleep(self.seconds)
        if broken:
            return broken
        if path.endswith("/systemone") and not self.system_one:
            return 404, {}, b'{"detail": "Not Found"}'
        with self.lock:
            self.bodies.append(body)
        content = self.choose(body) if path.endswith("/systemone") else self.chat(body)
        return 200, {"content-type": "application/json"}, json.dumps(content).encode()

    def chat(self, body):
        prompt = body["messages"][0]["content"]
        several = body.get("n", 1) if self.several else 1
        sampled = self.samples and body["temperature"] > 0
        choices = []
        for _ in range(several):
            if "Text: " not in prompt:
                said, score = "".join(random.choices("abcdefghij", k=10)) if sampled else "abcdefghij", 0.0
            else:
                score = score_of(text_of(prompt))
                share = 1 / (1 + 2.718281828459045**-score)
                best = random.random() < share if sampled else share > 0.5
                said = self.answer(text_of(prompt)) if self.answer else None
                said = "AB"[best] if said is None else said
            choice = {"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
            if self.logprobs and body.get("logprobs"):
                pair = [{"token": "A", "logprob": -5.0}, {"token": " B", "logprob": -5.0 + score}]
                token = next((one for one in pair if one["token"].strip() == said), {"token": said, "logprob": -9.0})
                choice["logprobs"] = {"content": [{**token, "top_logprobs": pair}]}
            choices.append(choice)
        return {"choices": choices, "usage": {"prompt_tokens": 40, "completion_tokens": 2}}

    def choose(self, body):
        """The probability depends on the text, and on the place of a class: the first has a bonus."""
        score = score_of(body["state"])
        answers = {}
        for name, question in body["questions"].items():
            weights = {}
            for place, label in enumerate(question["criteria"]):
                weights[label] = 2.718281828459045 ** (score * (label == "positive")) + 1.0 * (place == 0)
            shares = {label: weight / sum(weights.values()) for label, weight in weights.items()}
            answers[name] = {"probabilities": shares}
        return {"answers": answers, "usage": {"input_tokens": 80, "output_tokens": 0}}
