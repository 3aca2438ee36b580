"""The words of `loadsim explain`: for each finding, fate, outcome and family of metrics, what to look at and to do.

Text alone. Measured numbers are those of Linux 6.18 unless said.
"""

from __future__ import annotations

from typing import NamedTuple


class Text(NamedTuple):
    """Where to look and what to do; "" where there is nothing."""

    look_at: str = ""
    do: str = ""


class FindingText(NamedTuple):
    """What a finding means, where to look and what to do."""

    means: str
    look_at: str
    do: str


FINDING_TEXTS: dict[str, FindingText] = {
    "fd-leak": FindingText(
        "The server opens descriptors that it never closes: connections whose client has left, or what a request "
        "opened besides its connection. Every process has a limit of open descriptors (RLIMIT_NOFILE); a leak reaches "
        'any limit, only later. Then accept(), open() and socket() fail with EMFILE, "Too many open files".',
        "The picture of open fds: a leak is a line that never comes down, also after the load. In production: "
        "`loadsim inspect NAME --watch` names what grows, and foretells the end; by hand `ls /proc/PID/fd | wc -l` "
        "twice, a minute apart, and `ss -tanp state close-wait`. CLOSE_WAIT means that the other side has closed and "
        "this program has not.",
        'Close the socket when recv() returns b"", and on every error path (a with block, finally, defer). A higher '
        "limit only buys the time that the finding states: enough to deploy the cure, never instead of it.",
    ),
    "fd-limit": FindingText(
        "The server closes what it opens, but more clients were there at once than it may have descriptors. This is "
        "load, not a leak: the open descriptors come down again when the clients leave.",
        "fds.limit against fds.baseline, and how long each client holds its connection. In production: "
        "`cat /proc/PID/limits` (a limit in a shell does not reach a service).",
        "Raise nofile above baseline + clients at once x descriptors per client (`LimitNOFILE=` in a systemd unit, "
        "`ulimits:` in compose). Close idle connections sooner. Or limit how many clients are served at once, so that "
        "the rest waits in the accept queue on purpose.",
    ),
    "emfile-handler": FindingText(
        "accept() took the last descriptor for the connection itself, and the request then found none for the file, "
        "pipe or upstream connection that it needs. The client was let in only to be failed.",
        "emfile.handler against emfile.accept: in a server with headroom the first is 0. In production: HTTP 500 with "
        '"Too many open files" in the log while health checks still connect.',
        "Stop accepting while fewer descriptors are left than one request needs: a semaphore around accept(), a limit "
        "of connections in the server's settings, a pool for upstream connections.",
    ),
    "emfile-spin": FindingText(
        "The listening socket stays readable as long as somebody waits in the queue, and accept() fails at once "
        "(0.2 us). A loop that polls, fails and polls again runs as fast as the CPU allows, takes it from the clients "
        "that are being served, and often writes a line of log each time.",
        "server.cpu_at_limit and emfile.rate. In production: one core at 100 % and a log that grows by megabytes a "
        "second, in a server that serves nobody new.",
        "After EMFILE stop watching the listener for 100 ms (trio), back off up to a second (Go), wait until a "
        "connection closes (memcached), or keep one descriptor in reserve: give it up, accept, close, take it back "
        "(libuv, Twisted). Try them with server.on_emfile.",
    ),
    "false-connect": FindingText(
        "connect() succeeded, and nobody was there. The kernel finishes the handshake itself and puts the connection "
        "into the accept queue; the server learns of it only by accept(), for which it has no descriptor. To its "
        "client this looks like a slow server, until its time-out.",
        "The fate `queued` and the outcome `reply_timeout`. In production: `ss -ltn` shows Recv-Q (the queue) at "
        "Send-Q (its limit) while health checks that only connect stay green.",
        "Let health checks and clients wait for a reply, with a time-out. Cure the missing descriptors (fd-leak or "
        "fd-limit); a smaller backlog makes such clients fail sooner, a larger one hides more of them.",
    ),
    "queue-overflow": FindingText(
        "The accept queue was full. It holds min(backlog, net.core.somaxconn) + 1 connections; beyond that the kernel "
        "drops SYNs, and final ACKs of handshakes already under way. The client is told nothing: its own kernel sends "
        "the SYN again, after one second at first.",
        "queue.max against queue.limit, listen.overflows (packets, not clients), fates `dropped` and `phantom`. In "
        "production: `nstat -az TcpExtListenOverflows`, `ss -ltn`.",
        "First ask why the queue is not emptied: no descriptors, a slow or a pausing acceptor. A backlog covers a "
        "pause: backlog >= arrivals per second x longest pause; set both listen(fd, n) and net.core.somaxconn.",
    ),
    "queue-abort": FindingText(
        "With net.ipv4.tcp_abort_on_overflow = 1 the kernel answers the last ACK of a handshake by RST when the accept "
        "queue is full, instead of dropping it.",
        "The fate `aborted`; EmbryonicRsts in `nstat`. Clients see ECONNRESET right after connecting.",
        "Set it to 0 unless clients can go elsewhere at once: dropped packets are sent again and mostly succeed.",
    ),
    "phantom-connections": FindingText(
        "The client is connected to nothing. Its last ACK met a full accept queue and was dropped; the client cannot "
        "know that. With SYN cookies the server remembers nothing of it at all, and has no socket in any table.",
        "The fate `phantom`; listen.cookies, listen.ack_drops. `ss -tan` shows ESTABLISHED at the client's side and "
        "nothing, or SYN-RECV, at the server's. No counter says how many there are: only both ends together do.",
        "A larger backlog (which is the length of the SYN queue too) and a faster acceptor. Clients need a time-out "
        "for the reply. With net.ipv4.tcp_syncookies = 0 such clients stay in SYN-SENT and try again.",
    ),
    "late-admission": FindingText(
        "The client was connected to nothing, as in phantom-connections, until it gave up. Its FIN completed the "
        "handshake, so that the server accepted somebody who had left.",
        'accept.late; outcome `reply_timeout` beside fate `accepted`. At the server: recv() returns b"" at once.',
        "As for phantom-connections: a larger backlog and a faster acceptor.",
    ),
    "syn-delay": FindingText(
        "These clients connected a second or more late because a SYN of theirs was dropped and their kernel sent it "
        "again on its own timer: after about 1, 2, 3, 4, 5, 7, 11 s where net.ipv4.tcp_syn_linear_timeouts = 4 (the "
        "default since Linux 6.5), after 1, 3, 7, 15 s before.",
        "connect.max and attempts.delayed: latencies that sit on whole seconds are timers, not work. In production: "
        "`nstat -az TcpExtTCPSynRetrans` on the clients.",
        "Cure the full queue (queue-overflow). Do not look for a slow server, and do not average these into a mean.",
    ),
    "slow-accept": FindingText(
        "Clients waited in the accept queue although the server had descriptors: it calls accept() too seldom, always "
        "or for a while. A garbage collection, a blocking call in an event loop or one accept per turn look like this.",
        "accept.p50 (always slow) and accept.pause_max (now and then); in the picture the queue is a ramp or a comb.",
        "Accept until EAGAIN, keep blocking work off the thread that accepts, add acceptors (SO_REUSEPORT). A backlog "
        "of arrivals per second x longest pause covers pauses; nothing covers an acceptor that is slower than its "
        "clients arrive.",
    ),
    "fd-table-stall": FindingText(
        "The kernel keeps a process's descriptors in a table that it doubles when it is full: at 64, 128, 256 ... In a "
        "process with several threads each doubling waits for an RCU grace period; with one thread it does not.",
        "The growth table: bands that begin at a growth point, and their pause. Here: 7-18 ms each with one idle "
        "thread, below 0.2 ms with none. Production reports say 20-70 ms.",
        "Grow the table once, before the load and before threads start: dup2(fd, n) to the highest number that will be "
        "needed, then close(n). Try it with server.prewarm_fds.",
    ),
    "somaxconn-cap": FindingText(
        "listen(fd, n) takes the smaller of n and net.core.somaxconn, without an error. In a network namespace of its "
        "own, as in most containers, somaxconn starts from the kernel's default and not from the host's value.",
        "`ss -ltn`: Send-Q of a listening socket is the backlog in force.",
        "Raise net.core.somaxconn (in a container: --sysctl net.core.somaxconn=...), then call listen() again.",
    ),
    "shed-clients": FindingText(
        "The server had no descriptor left, gave up one that it kept in reserve, accepted, and closed at once. Its "
        "queue stays empty, and clients learn in a millisecond that they are not served.",
        "The fate `shed`; the outcomes `eof` and `reset`.",
        "This is the kinder way to be full. Cure the missing descriptors, and let clients wait before they try again.",
    ),
    "target-ended": FindingText(
        "The server was gone before the run was over. Whoever waited in its accept queue was reset, whoever came later "
        "was refused.",
        "target.stderr in the result; the fates `orphaned` and `refused`; for signal 9 `dmesg` (the OOM killer).",
        "Catch EMFILE around accept(): many servers die of it because nobody thought that accept() could fail.",
    ),
    "no-recovery": FindingText(
        "There was room again (clients had left, or the limit rose), and the server still answered no new client. "
        "It waits for something that does not come: a close on a connection that nobody has, a thread that died, a "
        "listener that it no longer watches.",
        "The canaries after the last mark of the timeline. In production: a process that lives, listens, completes "
        "handshakes, and has been silent since.",
        "Restart it today. Then let the accept loop try again by itself some time after EMFILE.",
    ),
    "recovery": FindingText(
        "How long after room was made the first new client got its answer. It is more than one delay of the server: "
        "clients that left while they waited are still in the queue, are accepted first, and may fill the table again.",
        "recovery.time, recovery.last_bad, and recovery.emfile: how often it failed once more.",
        "A pause of 10 to 100 ms after EMFILE comes back as fast as spinning and costs no CPU.",
    ),
    "outage": FindingText(
        "The canary is a client of its own that connects, asks once and leaves, again and again, whatever the load is. "
        "Here some of them got no answer in time.",
        "canary.silent (connected, never answered), canary.unreachable (no answer to the SYN), canary.turned_away.",
        "Let health checks ask for an answer: a connect succeeds as long as the kernel has room in the queue.",
    ),
    "clients-failed": FindingText(
        "Clients failed, and nothing that loadsim measures at the server explains it.",
        "The table of outcomes, target.stderr, and the time-outs of the scenario.",
        "Compare client.reply_timeout with how long the server holds a request; try a longer one.",
    ),
    "limit-raised": FindingText(
        "The limit that the kernel shows for the server is higher than the one it was started with: the program raised "
        "its own soft limit to the hard one, as Go does since 1.19.",
        "`cat /proc/PID/limits`.",
        "Where a limit is meant, set the hard one too: `ulimit -Hn`, or both numbers of `LimitNOFILE=soft:hard`.",
    ),
    "prediction-gap": FindingText(
        "Before a run loadsim predicts by arithmetic, from rates, limits and baseline, when the limit is reached, "
        "when the queue is full, and how many end where. Here the measurement differs by more than 10 %.",
        "The two columns predicted and measured.",
        "Ask what else took descriptors or time: other threads, log files, a slow machine, a raised limit.",
    ),
    "fates-unknown": FindingText(
        "A server of one's own writes no records. That it took a client is proved by an answer, or by the TCP table, "
        "read ten times a second and when the run is judged, where a process owns the connection. Neither was there.",
        "The outcome of these clients, and the fates of those for whom there is a proof.",
        'Let clients ask for an answer (client.exchange = "http") or stay longer (client.hold).',
    ),
    "foreign-accepts": FindingText(
        "The server accepted connections from an address and port that no attempt of this run had.",
        "`ss -tnp` while it runs: a curl, a health check, a port scanner.",
        "Keep others away from the port; they take descriptors and places in the queue.",
    ),
    "join-ambiguous": FindingText(
        "loadsim matches both ends of a connection by address, port, order, and the state that accept() found. A close "
        "by RST frees its port at once; where several connections of one 4-tuple waited together and some never came "
        "in, the order has holes that the age of the socket could not always fill.",
        "join.ambiguous.",
        'Nothing for the totals. For exact rows: more client.sources, or client.close = "fin".',
    ),
    "nothing-found": FindingText(
        "No rule of loadsim found a fault: no limit was reached, no queue overflowed, nobody was kept waiting.",
        "How far it was from that: fds.max against fds.limit, queue.max against queue.limit.",
        "Raise the load until something gives: that is the number to know.",
    ),
    "interrupted": FindingText(
        "The run was stopped before its end (Ctrl-C, a signal, an abort threshold) or its conductor was killed. What "
        "was recorded is exact to that moment; the connections that were under way have no fate worth the name.",
        "What stopped it, in the finding itself.",
        "Run it again.",
    ),
    "settings-degraded": FindingText(
        "Something that the scenario asks for was not in force: a sysctl, a limit, a namespace of its own. What was "
        "measured is true, but not of the scenario as written.",
        "The sentences of the finding: each names what was refused, and by whom.",
        "Run it where it is allowed, or take the setting out of the scenario.",
    ),
    "watcher-lost": FindingText(
        "The canary, or the clients that it holds, are processes of their own, and one of them ended before the run "
        "did. Attempts, fates and descriptors are as good as ever; of outage and recovery nothing is known after that.",
        "The sentences of the finding: which of them, and how it ended; its .stderr lies in the result.",
        "Run it again; look for what ended it (out of memory, a signal).",
    ),
    "ledger-unbalanced": FindingText(
        "Every attempt has one outcome and one fate, and both must add up. Here they do not: records are missing, "
        "or the kernel's queue and what was taken from it differ.",
        "The sentences of the finding.",
        "Run it again. If it comes back, keep the result folder: it is a bug of loadsim, or of the kernel.",
    ),
    "generator-ended": FindingText(
        "A driver, one of the processes that play the clients, was gone before its share of the load was done.",
        "Its stderr in the result folder; `dmesg` for the OOM killer.",
        "Give it memory, or less to do: client.max_in_flight, client.processes.",
    ),
    "generator-late": FindingText(
        "Some clients came after the time that the scenario set for them, too few to change what happened. Response "
        "times count from the intended start, so that they include it.",
        "generator.lag.p50, p90, p99; `uptime` and `top` for what else runs on this machine.",
        "Compare service times (connect_service) where microseconds matter, or quieten the machine.",
    ),
    "generator-limited": FindingText(
        "The clients came later, or fewer, than the scenario says, because the machine or the limits of the generator "
        "held them back. Its numbers then describe the generator. It says so before it says anything of the server.",
        "generator.lag.p99, generator.cpu, generator.local_failures, and the fates `local` and `not_started`.",
        "The finding names the knob: more client.processes, more client.sources, a higher hard limit, a lower rate, or "
        "a quieter machine.",
    ),
}

FATE_TEXTS: dict[str, Text] = {
    "accepted": Text("The outcome says whether its client was still there.", ""),
    "shed": Text("", "See the finding shed-clients."),
    "queued": Text(
        "`ss -tn` at the server: ESTABLISHED (or CLOSE-WAIT) without a process, inode 0.",
        "Such a client believes that it is connected. See the findings false-connect and slow-accept.",
    ),
    "orphaned": Text("", "See the finding target-ended."),
    "phantom": Text("No socket at the server, or one in SYN-RECV.", "See the finding phantom-connections."),
    "aborted": Text("", "See the finding queue-abort."),
    "half_open": Text("`ss -tan state syn-recv`.", "Look for a firewall between the two."),
    "dropped": Text("`ss -tan state syn-sent` at the client.", "See the finding queue-overflow."),
    "refused": Text("`ss -ltn`: does anybody listen on that port?", "Start the server; see the finding target-ended."),
    "local": Text(
        "The errno in the finding generator-limited.", "Give the generator what it lacks; blame nobody else."
    ),
    "not_started": Text("", "Raise client.max_in_flight; waiting instead would have hidden the delay."),
    "unknown": Text(
        "", "Happens where records of the server are missing, as after a killed run, or where it writes none."
    ),
}

OUTCOME_TEXTS: dict[str, Text] = {
    "ok": Text("reply.* says how long it took.", ""),
    "connected": Text("The fate: it may never have been accepted.", "Use another client.exchange to learn of service."),
    "error": Text("The server's log.", "See the finding emfile-handler."),
    "eof": Text("", "The server closed without a reply: shed, or a handler that failed."),
    "reset": Text("", "The server or its kernel refused to go on: shed, queue-abort, target-ended."),
    "refused": Text("`ss -ltn`: does anybody listen on that port?", "Start the server; see the finding target-ended."),
    "connect_timeout": Text("The fate, mostly `dropped`.", "See the finding queue-overflow."),
    "reply_timeout": Text(
        "The fate: `queued` waited for accept(), `phantom` for nobody, `accepted` for a slow or late reply.", ""
    ),
    "local": Text(
        "The errno in the finding generator-limited.", "Give the generator what it lacks; blame nobody else."
    ),
    "not_started": Text("", "Raise client.max_in_flight; waiting instead would have hidden the delay."),
    "unfinished": Text("Whether the run was interrupted.", "A longer client.reply_timeout ends nothing sooner."),
}

#: By the first word of a metric's name.
METRIC_TEXTS: dict[str, Text] = {
    "attempts": Text("The plan of the scenario: rate, stages or clients.", ""),
    "connect": Text(
        "attempts.delayed first: a second more is a SYN that was sent again.", "See the finding syn-delay."
    ),
    "accept_least": Text("Beside accept.*: the truth lies between the two.", "Run as root: the kernel then tells it."),
    "connect_service": Text("Beside connect.*: the difference is the generator's own lag.", ""),
    "accept": Text(
        "accept.waiting, always: who was never accepted is in no percentile.", "See the finding slow-accept."
    ),
    "reply": Text("The outcome table: who got no reply is in no percentile.", ""),
    "fds": Text("The picture and the growth table.", "See the findings fd-leak and fd-limit."),
    "emfile": Text("The finding that names who used the descriptors up.", "See fd-leak, fd-limit and emfile-spin."),
    "queue": Text("`ss -ltn` in the same namespace: Recv-Q of Send-Q, which is one less.", "See queue-overflow."),
    "listen": Text("`nstat -az` in the same namespace. These are packets, not clients.", "See queue-overflow."),
    "syn": Text("attempts.delayed: the clients behind these packets.", "See the finding syn-delay."),
    "server": Text("The picture of the time at the limit.", "See emfile-spin and target-ended."),
    "canary": Text("The row of canaries under the picture.", "See the findings outage and no-recovery."),
    "recovery": Text("The marks of the timeline in the picture.", "See the finding recovery."),
    "held": Text("held.unanswered, always: who got no answer is in no percentile.", ""),
    "generator": Text("The line of the generator in the summary.", "See the finding generator-limited."),
    "join": Text("The ledger.", "See foreign-accepts and join-ambiguous."),
}
