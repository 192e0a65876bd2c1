# What a guest does on its network: orders come as lines of JSON, and so do their answers, each as soon as it is known. The guest's Python is a minimal one, without modules for JSON.
import ast, os, socket, struct, sys, threading, time

held = {}


def tcp(to, text, wait):
    conn = socket.create_connection(tuple(to), wait)
    conn.settimeout(wait)
    return conn, say(conn, text)


def say(conn, text):
    line = (text + "\n").encode()
    conn.sendall(line)
    return conn.makefile("rb").readline() == line


def udp(to, text, wait):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(wait)
        s.sendto(text.encode(), tuple(to))
        return s.recvfrom(2048)[0] == text.encode()


def pass_(o):  # does a flow pass?
    try:
        if o["protocol"] == "udp":
            return udp(o["to"], o["text"], o["wait"])
        conn, said = tcp(o["to"], o["text"], o["wait"])
        conn.close()
        return said
    except OSError:
        return False


def hold(o):  # a connection that stays
    held[o["text"]], said = tcp(o["to"], o["text"], o["wait"])
    return said


def again(o):
    conn = held[o["text"]]
    conn.settimeout(o["wait"])
    try:
        return say(conn, o["text"] + " again")
    except OSError:
        return False


def look(o):
    try:
        return sorted({a[4][0] for a in socket.getaddrinfo(o["text"], None, socket.AF_INET)})
    except socket.gaierror:
        return []


def raw(o):  # a datagram with a source of its own choice, also a false one
    data = o["text"].encode()
    datagram = struct.pack("!HHHH", 4000, o["to"][1], 8 + len(data), 0) + data
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(datagram), 1, 0, 64, 17, 0, socket.inet_aton(o["from"]), socket.inet_aton(o["to"][0]))
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as s:
        s.sendto(header + datagram, (o["to"][0], 0))
    return True


def serve(o):
    listener = socket.create_server(("0.0.0.0", o["to"][1]))

    def answer(conn):
        for line in conn.makefile("rb"):
            conn.sendall(line)

    def accept():
        while True:
            threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return True


def rate(o, step):  # of what step counts, in a second, after what came before the limit held
    end = begin = time.monotonic()
    while end - begin < o["skip"]:
        step()
        end = time.monotonic()
    begin, total = end, 0
    while end - begin < o["seconds"]:
        total += step()
        end = time.monotonic()
    return total / (end - begin)


HEADERS = 14 + 20 + 8  # of a datagram's frame


def connected(o):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(1)
    s.connect(tuple(o["to"]))
    return s


def receive(o):  # who is told to sends so many bytes a second
    s = connected(o)
    s.send(b"%d %d" % (o["size"], o["skip"] + o["seconds"] + 1))

    def step():
        try:
            return len(s.recv(2048)) + HEADERS
        except TimeoutError:
            return 0

    return rate(o, step)


def transmit(o):  # what arrives, another counts
    s, data = connected(o), bytes(o["size"] - HEADERS)
    end = time.monotonic() + o["skip"] + o["seconds"]
    while time.monotonic() < end:
        try:
            s.send(data)
        except OSError:
            pass
    return True


def read(o):  # from the disk, each time
    f = os.open(o["text"], os.O_RDONLY)
    os.posix_fadvise(f, 0, 0, os.POSIX_FADV_RANDOM)
    data = bytearray(o["size"])
    at, whole = 0, os.lseek(f, 0, os.SEEK_END)

    def step():
        nonlocal at
        n = os.preadv(f, [data], at)
        os.posix_fadvise(f, at, n, os.POSIX_FADV_DONTNEED)
        at = (at + n) % whole
        return n

    return rate(o, step)


lock = threading.Lock()
do = {"pass": pass_, "hold": hold, "again": again, "look": look, "raw": raw, "serve": serve, "receive": receive, "transmit": transmit, "read": read}


def text(value):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(map(text, value)) + "]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "/").replace('"', "'").replace("\n", " ") + '"'
    return str(value)


def obey(o):
    try:
        answer = '"answer": ' + text(do[o["do"]](o))
    except Exception as e:
        answer = '"error": ' + text(repr(e))
    with lock:
        print('{"id": %d, %s}' % (o["id"], answer), flush=True)


for line in sys.stdin:
    threading.Thread(target=obey, args=(ast.literal_eval(line),), daemon=True).start()
