"""The inbox as a web page: ``checkrein inbox web``, for the people who answer.

What is protected, and how:

* **Who answers.** A person signs in by a link that is printed in the operator's terminal:
  256 random bits, good once, for ten minutes. Opening it shows a page with one button, so
  that a preview of the link does not use it up. The verdict carries the name that the
  operator gave the link to; no form has a field for it.
* **Sessions** are in the memory of this process, last eight hours, and end with it. The
  cookie is ``HttpOnly`` and ``SameSite=Strict``; over TLS also ``Secure``.
* **Other sites.** Every POST carries the session's own token and comes from our own pages,
  by ``Origin``. Browsers send ``Origin: null`` from pages that, like ours, send no
  referrer; it is taken only with ``Sec-Fetch-Site: same-origin``, which no page can forge.
  A request for another host name is refused, so that no name can be pointed at this
  server. No page can be framed.
* **Hostile values.** Every letter shows (:mod:`checkrein.gates.inbox`), templates escape,
  and the policy of the pages allows no script, style or connection but our own files.
* **What was shown is what is answered.** The form carries the digest of the question that
  stood on the page, and the verdict is bound to it.
* **A yes is deliberate.** No button is focused, the return key in a field sends no yes, and
  waiting and typing in (``Care``) are enforced by the desk, not by the page.

The page works without JavaScript; with it, it is told of news and counts time down.

It speaks plain HTTP: it belongs on the loopback address, or behind a proxy that speaks
TLS (``--url``). It needs ``pip install 'checkrein[inbox]'``; importing this package does not.

From low to high: ``session`` is who is signed in, ``protection`` what every request has to
pass and every response carries, ``pages`` what is rendered, ``app`` the routes, ``serving``
the server.
"""
