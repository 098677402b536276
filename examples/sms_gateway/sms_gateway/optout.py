"""STOP, START and HELP: what a text asks for in the words that carriers prescribe. Pure functions.

Two rules decide. Whoever says stop gets nothing more: punctuation, quotes, emoji, case, accents
and courtesy do not matter, and ``stop texting me`` is a stop. And what people also say otherwise
counts alone only: neither ``stop by later`` nor ``the end of the road`` asks for anything.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

#: What a text can ask for.
Request = Literal["stop", "start", "help"]

#: Apostrophes, and signs without a width: they part no words.
_JOINING = re.compile("['\u2018\u2019\u02bc\u0060\u00b4]")
_SENTENCE = re.compile(r"[.!?;:,\n\r\u2026\u3002\uff01\uff1f]+")


def fold(text: str) -> list[str]:
    """The words of a text without case, accents, punctuation, emoji and forms of one letter."""
    plain = unicodedata.normalize("NFKC", _JOINING.sub("", text)).casefold()
    kept = []
    for sign in unicodedata.normalize("NFKD", plain):
        kind = unicodedata.category(sign)
        if kind[0] in "LN" or kind == "Mc":
            kept.append(sign)
        elif kind not in ("Mn", "Me", "Cf", "Sk"):
            kept.append(" ")
    return "".join(kept).split()


def _phrases(text: str) -> frozenset[tuple[str, ...]]:
    return frozenset(tuple(fold(phrase)) for phrase in text.split("/"))


def _words(text: str) -> frozenset[str]:
    return frozenset(word for words in _phrases(text) for word in words)


#: They mean nothing else: also with what usually stands around them. Twilio's words, those of the
#: FCC's rule on revoking consent and of the CTIA's, and the same in other languages.
_STOP = _phrases(
    "stop/stopp/stops/stopit/stop all/stopall/unsubscribe/un subscribe/unsub/unsubscribed/optout"
    "/opt out/opt me out/optmeout/remove me/take me off/no more"
    "/dont text me/do not text me/leave me alone/stop2end/stop 2 end/stop2quit/stop 2 quit"
    "/stop to end/stop to quit/stoptext/stoptexts/stoptexting/stopsms/stopnow"
    "/unsubcribe/unsuscribe/unsubscibe/unsubsribe/unsubscrib/unsubscribes"
    "/cancel subscription/cancel my subscription/cancel all/end subscription/end my subscription"
    "/remove my number/delete my number/delete me/take my number off"
    "/arrêt/arrête/arrêtez/arrêter/arrett/désabonner/désabonnez moi/désabonnement"
    "/désabonne moi/désinscrire/désinscription"
    "/desuscribir/desuscribirme/cancelar suscripción/dar de baja/darme de baja/darse de baja/no más"
    "/stoppen/abmelden/abbestellen/disiscrivi/disiscrivimi/afmelden/uitschrijven/avregistrera"
    "/stoppa/avmeld/afmeld/afmeld mig/stop det/wypisz/wypisz mnie/odhlásit/leiratkozás/leiratkozom"
    "/стоп/стор/стопп/отписаться/отпишите/отписка/відписатися/στοπ/διαγραφή/停止/停止してください/配信停止/ストップ"
    "/退订/退訂/td/取消订阅/取消訂閱/停止订阅/수신거부/수신 거부/توقف/إيقاف/الغاء الاشتراك/หยุด"
    "/itigil/itigil na/tigilan/berhenti/hentikan/berhenti langganan/huỷ đăng ký/hủy đăng ký"
)
#: These are said of other things too: they count alone, or with no more than a courtesy.
_STOP_ALONE = _phrases(
    "end/cancel/quit/revoke/off/remove/alto/para/pare/parar/baja/salir/cancelar/detener/fin/ende"
    "/sair/basta/ferma/tigil/hinto/ihinto/tama na/annuler/annulla/iptal/dur/durdur/suspender"
    "/aufhören/avsluta/avbryt/stans/stopt/lopeta/peru/peruuta/zatrzymaj/anuluj"
    "/rezygnuję/koniec/konec/zrušit/zastavit/leállít/huỷ/hủy/dừng/ngừng/batal/batalkan"
    "/simama/komesha/sitisha/ondoa/отмена/хватит/припинити/зупинити/διακοπή/解除/中止/取消"
    "/중지/정지/중단/취소/그만/בטל/הסר/עצור/הפסק/إلغاء/قف/ยกเลิก"
    "/रोकें/रोको/बंद/बंद करो/बंद करें/বন্ধ/বন্ধ করুন/நிறுத்து/રોકો/બંધ"
)
_START = _phrases("start/yes/unstop/un stop")
_HELP = _phrases("help/info/help me/aide/ayuda/ajuda/hilfe/aiuto/tulong")
_COURTESY = _words(
    "please/pls/plz/kindly/thanks/thank you/thx/ty/now/ok/okay/hi/hello/hey/dear/sir/maam"
    "/svp/s'il vous plaît/por favor/merci/gracias/bitte/danke/grazie/prego/obrigado/na/po/lang/paki"
    "/alstublieft/tack/tak/proszę/prosím/kérem/lütfen/пожалуйста/παρακαλώ/asap"
)
#: What may stand before one of the first list ...
_BEFORE = _COURTESY | _words(
    "i/im/we/me/want/wish/would/like/need/you/u/to/said/say/can/could/just/and/do/must/it"
)
#: ... and what may follow.
_AFTER = _COURTESY | _words(
    "it/this/that/these/those/the/all/any/more/me/my/mine/us/to/from/of/for/im/i/you/u/your/and/so"
    "/text/texts/texting/txt/txts/txting/message/messages/messaging/msg/msgs/sms/send/sending/sends"
    "/receiving/getting/subscribing/promo/promos/ads/offers/marketing/calling/calls/emailing"
    "/contacting/contact/bothering/spam/spamming/number/phone/alert/alerts/update/updates/news"
    "/notification/notifications/newsletter/list/subscription/subscriptions/service/services"
    "/everything/already/again/immediately/right/away/at/once/anymore/stop/unsubscribe/today"
    "/na po/moi/todo/todos/ya/alles"
)
#: Wherever they stand, somebody wants to get out, unless a word denies it.
_ANYWHERE = _phrases("unsubscribe/unsub/optout/opt out/stop texting/stop sending/stop messaging")
_DENIALS = _words("dont/not/never/no/wont/didnt/without")
#: It says stop in any language.
_STOP_SIGN = "\N{OCTAGONAL SIGN}"
_STOP_ALL = (("stopall",), ("stop", "all"))
_LONGEST_PHRASE = max(len(phrase) for phrase in _STOP)


def read_request(message: str) -> Request | None:
    """What a text asks for; None where it asks for nothing of the kind."""
    words = fold(message)
    if len(words) > 2 and all(len(word) == 1 for word in words):
        words = ["".join(words)]  # S.T.O.P
    if not words:
        return "stop" if _STOP_SIGN in message else None
    spoken = tuple(word for word in words if word not in _COURTESY)
    first_line = message.strip().partition("\n")[0]  # a signature may follow
    if spoken in _STOP_ALONE or tuple(fold(first_line)) in _STOP_ALONE:
        return "stop"
    if any(_is_stop(fold(part)) for part in (" ".join(words), *_SENTENCE.split(message))):
        return "stop"
    if ends_with_stop_all(message) or not _DENIALS.intersection(words) and _has(words, _ANYWHERE):
        return "stop"
    if spoken in _START or tuple(words) in _START:
        return "start"
    return "help" if spoken in _HELP or tuple(words) in _HELP else None


def is_plain(message: str) -> bool:
    """Whether a text that asks for something is one word, as prescribed, and nothing else."""
    return len(fold(message)) == 1


def ends_with_stop_all(message: str) -> bool:
    """Whether the last word of a text is ``stop all``, whatever is before it."""
    words = tuple(fold(message))
    return any(words[-len(end) :] == end for end in _STOP_ALL)


def is_always_stop(word: str) -> bool:
    """Whether a word means STOP also where it does not stand alone."""
    return tuple(fold(word)) in _STOP


def _has(words: list[str], phrases: frozenset[tuple[str, ...]]) -> bool:
    lengths = {len(phrase) for phrase in phrases}
    return any(
        tuple(words[begin : begin + length]) in phrases
        for begin in range(len(words))
        for length in lengths
    )


def _is_stop(words: list[str]) -> bool:
    for begin, word in enumerate(words):
        for end in range(min(begin + _LONGEST_PHRASE, len(words)), begin, -1):
            if tuple(words[begin:end]) in _STOP:
                return all(one in _AFTER for one in words[end:])
        if word not in _BEFORE:
            return False
    return False
