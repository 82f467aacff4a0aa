"""The page: a chat with pictures in both directions, on which drawings appear scale by scale."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # nothing is reported to anyone

import gradio as gr

from vargpt_lightning.errors import UserError
from vargpt_lightning.evaluation.adapters.ours import Conversation
from vargpt_lightning.models.answers import GenerationSettings
from vargpt_lightning.serving.engine import Drawn, Engine, Event, Failed, Finished, Sketch, Ticket, Words
from vargpt_lightning.serving.incoming_pictures import read_picture
from vargpt_lightning.serving.limits import RateLimit, RefusedRequestError, refusal
from vargpt_lightning.serving.openai_requests import check_letters
from vargpt_lightning.serving.streams import Stream

if TYPE_CHECKING:
    from fastapi import FastAPI
    from PIL import Image

CSS = """
footer { display: none !important }
#chat img { width: 256px; height: 256px; max-width: 100%; object-fit: contain }
#scales img { object-fit: contain }
"""
HOUR = 3600


@dataclass
class Session:
    """What one tab of a browser has said and seen; kept on the server.

    Attributes:
        conversation: what the model is given next time.
        shown: the messages of the chat, the pictures as paths.
        scales: the last drawing after each scale, with a caption.
        drawing: the path of the last finished drawing.
        note: a line about the last answer.
    """

    conversation: Conversation = field(default_factory=Conversation)
    shown: list[dict[str, Any]] = field(default_factory=list)
    scales: list[tuple[str, str]] = field(default_factory=list)
    drawing: str | None = None
    note: str = ""


class Page:
    """What the page does, and how it looks.

    Args:
        engine: answers.
        rate: counts requests, those to the API too.
        name: what the model is called.
    """

    def __init__(self, engine: Engine, rate: RateLimit, name: str) -> None:
        self.engine, self.rate, self.name = engine, rate, name
        self.limits, self.speaker = engine.limits, engine.speaker
        self.running: dict[str, Ticket] = {}
        # Removed with the process; Gradio copies what is shown to a folder of its own and empties that by the hour.
        self._folder = tempfile.TemporaryDirectory(prefix="vargpt-page-", ignore_cleanup_errors=True)

    def blocks(self) -> gr.Blocks:
        """Return the page."""
        session = gr.State(None, time_to_live=HOUR)
        with gr.Blocks(title=self.name, fill_height=True, analytics_enabled=False, delete_cache=(600, HOUR)) as page:
            session.render()
            with gr.Row():
                with gr.Column(scale=3):
                    # Without the button "share": it would send the chat to a host elsewhere.
                    look: dict[str, Any] = {"height": "65vh", "render_markdown": False, "buttons": ["copy"]}
                    chat = gr.Chatbot(label=self.name, elem_id="chat", feedback_options=None, **look)
                    box = gr.MultimodalTextbox(
                        placeholder="Ask, ask for a picture, or add pictures to ask about",
                        file_types=["image"],
                        file_count="multiple",
                        sources=["upload"],
                        max_plain_text_length=self.limits.prompt_characters,
                        show_label=False,
                        elem_id="box",
                    )
                    with gr.Row():
                        stop = gr.Button("Stop", elem_id="stop")
                        new = gr.Button("New conversation", elem_id="new")
                with gr.Column(scale=1, min_width=300):
                    scales = gr.Gallery(
                        label="The drawing, scale by scale",
                        elem_id="scales",
                        columns=3,
                        height=260,
                        interactive=False,
                        buttons=["fullscreen", "download"],
                    )
                    download = gr.DownloadButton("Download the drawing", interactive=False, elem_id="download")
                    note = gr.Markdown(elem_id="note")
                    settings = self._settings()
            shown = [chat, scales, download, note]
            asked = box.submit(
                self.answer,
                [box, session, *settings],
                [box, session, *shown],
                concurrency_limit=self.limits.queue,
                show_progress="hidden",
                api_visibility="private",
            )
            stop.click(self.stop, None, None, queue=False, api_visibility="private")
            for forgotten in (new.click, chat.clear):
                forgotten(self.forget, None, [session, *shown], cancels=[asked], api_visibility="private")
            page.unload(self.stop)
        return page

    def _settings(self) -> list[gr.components.Component]:
        """The controls, in the order in which `answer` takes them."""
        visual = self.speaker.settings.visual or self.speaker.model.sampling_settings()
        codes = self.speaker.model.image_tokenizer.vocabulary
        words = self.speaker.settings
        most = self.limits.new_tokens
        with gr.Accordion("Settings", open=True):
            return [
                gr.Slider(0, 10, visual.cfg, step=0.1, label="Guidance", info="0 turns it off", elem_id="cfg"),
                gr.Slider(0, codes, min(visual.top_k, codes), step=1, label="Top-k", info="codes kept; 0 keeps all"),
                gr.Slider(0, 1, visual.top_p, step=0.01, label="Top-p", info="probability kept; 0 keeps all"),
                gr.Number(-1, precision=0, label="Seed", info="-1: another one each time", elem_id="seed"),
                gr.Slider(
                    0, 2, words.temperature, step=0.05, label="Temperature of the words", info="0: the likeliest"
                ),
                gr.Slider(1, most, min(words.max_new_tokens, most), step=1, label="Words at most", info="in tokens"),
            ]

    async def answer(
        self,
        message: dict[str, Any],
        session: Session | None,
        cfg: float,
        top_k: float,
        top_p: float,
        seed: float,
        temperature: float,
        length: float,
        request: gr.Request,
    ) -> AsyncIterator[tuple[Any, ...]]:
        """Answer what stands in the box, and show the answer while it comes."""
        session = session or Session()
        text, files = message.get("text") or "", message.get("files") or []
        if not text.strip() and not files:
            yield gr.skip(), session, *self._show(session)
            return
        tab = request.session_hash or ""
        try:
            self.rate.admit(request.client.host if request.client else "unknown")
            if tab in self.running:
                raise RefusedRequestError("the last answer is still being made; stop it first", 409)
            conversation = self._ask(session, text, files)
            chosen = int(seed) if seed is not None and seed >= 0 else secrets.randbelow(2**31)
            how = self._how(cfg, int(top_k), top_p, chosen, temperature, int(length))
            forgotten = self.speaker.forget_oldest(conversation)
            ticket = Ticket(conversation, how, sketches=True)
            stream = Stream.of([ticket])
            self.engine.submit([ticket])
        except UserError as error:
            session.note = f"**{error}**"
            yield gr.skip(), session, *self._show(session)
            return
        session.shown.append(
            {"role": "user", "content": [*({"path": file} for file in files), *([text] if text else [])]}
        )
        session.shown.append({"role": "assistant", "content": ["…"]})
        session.note = f"Seed {chosen}." + (f" The {forgotten} oldest turns are forgotten." if forgotten else "")
        self.running[tab] = ticket
        parts: list[Any] = []
        try:
            yield None, session, *self._show(session)
            async for _, event in stream.events():
                self._take(session, parts, event, conversation)
                session.shown[-1] = {"role": "assistant", "content": list(parts) or ["…"]}
                yield gr.skip(), session, *self._show(session)
        finally:  # also where the browser has left
            ticket.cancel()
            self.running.pop(tab, None)

    def _how(
        self, cfg: float, top_k: int, top_p: float, seed: int, temperature: float, length: int
    ) -> GenerationSettings:
        words = self.speaker.settings
        visual = words.visual or self.speaker.model.sampling_settings()
        return replace(
            words,
            visual=replace(visual, cfg=cfg, top_k=top_k, top_p=top_p),
            seed=seed,
            temperature=temperature,
            max_new_tokens=min(length, self.limits.new_tokens),
            max_images=min(words.max_images, self.limits.images),
        )

    def _ask(self, session: Session, text: str, files: list[str]) -> Conversation:
        """The conversation with the new turn; the session's own stays as it is until there is an answer."""
        check_letters(len(text), self.limits, "text")
        conversation = session.conversation.copy()
        before = sum(key.startswith("seen-") for key in conversation.pictures)
        if before + len(files) > self.limits.pictures:
            most = self.limits.pictures
            raise RefusedRequestError(f"a conversation has {most} pictures at most; begin a new one")
        seen = {}
        for number, file in enumerate(files):
            path = Path(file)
            if path.stat().st_size > self.limits.picture_bytes:
                raise RefusedRequestError(f"a picture has {self.limits.picture_bytes} bytes at most")
            seen[f"seen-{before + number}"] = self.speaker.see(read_picture(path.read_bytes(), self.limits))
        conversation.ask(text, seen)
        return conversation

    def _take(self, session: Session, parts: list[Any], event: Event, conversation: Conversation) -> None:
        """Show an event: words and the picture in the making stand at the end of `parts`."""
        if isinstance(event, Words):
            if parts and isinstance(parts[-1], str):
                parts[-1] += event.text
            else:
                parts.append(event.text)
        elif isinstance(event, Sketch):
            entry = {"path": self._save(event.image), "alt_text": f"scale {event.number} of {event.total}"}
            if event.number == 1:
                session.scales = []
                parts.append(entry)
            else:
                parts[-1] = entry
            session.scales = [*session.scales, (entry["path"], f"{event.number} of {event.total}")]
        elif isinstance(event, Drawn):
            session.drawing = self._save(event.part.image)
            parts[-1] = {"path": session.drawing, "alt_text": "a drawing"}
        elif isinstance(event, Failed):
            parts.append(f"({refusal(event.error)})")
            session.note = "**There is no answer; the question is not kept.**"
        elif isinstance(event, Finished):
            conversation.add(event.answer)
            session.conversation = conversation
            if event.answer.finished == "stopped":
                session.note += " Stopped."
            if not parts:
                parts.append("(stopped)" if event.answer.finished == "stopped" else "(an empty answer)")

    def _save(self, image: Image.Image) -> str:
        with tempfile.NamedTemporaryFile(dir=self._folder.name, suffix=".png", delete=False) as file:
            image.save(file, "PNG")
        return file.name

    def _show(self, session: Session) -> tuple[Any, ...]:
        button = gr.DownloadButton(value=session.drawing, interactive=session.drawing is not None)
        return list(session.shown), list(session.scales), button, session.note

    def stop(self, request: gr.Request) -> None:
        """End the answer of this tab; what is there of it stays."""
        if ticket := self.running.get(request.session_hash or ""):
            ticket.cancel()

    def forget(self, request: gr.Request) -> tuple[Any, ...]:
        """Begin again."""
        self.stop(request)
        session = Session()
        return session, *self._show(session)


def mount_page(app: FastAPI, engine: Engine, rate: RateLimit, name: str) -> FastAPI:
    """Put the page at the root of an application."""
    page = Page(engine, rate, name)
    blocks = page.blocks()
    blocks.queue(max_size=engine.limits.queue)
    return gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        css=CSS,
        theme=gr.themes.Default(  # fonts of the system, none from elsewhere
            font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
        ),
        allowed_paths=[page._folder.name],
        max_file_size=engine.limits.picture_bytes,
        show_error=False,
        footer_links=[],
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
    )
