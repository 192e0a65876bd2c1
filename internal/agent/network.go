//go:build linux

package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// The network of every machine is the same inside: what differs is outside. The gateway answers for names too.
const networkInterface = "eth0"

var (
	networkAddress = netip.MustParsePrefix("172.16.0.2/30")
	networkGateway = netip.MustParseAddr("172.16.0.1")
)

// networkUp gives the network interface its address and its route, where the machine has one. The resolver and the names of this host are files of the image, which may
// lack them or have its builder's: they are written anew.
func networkUp(root string) error {
	if err := writeHosts(root); err != nil {
		return err
	}
	index, err := interfaceIndex(networkInterface)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", networkInterface, err)
	}
	if err := addressUp(networkInterface, networkAddress); err != nil {
		return fmt.Errorf("%s: %w", networkInterface, err)
	}
	if err := addDefaultRoute(index, networkGateway); err != nil {
		return fmt.Errorf("%s: default route: %w", networkInterface, err)
	}
	return renewFile(filepath.Join(root, "etc/resolv.conf"), fmt.Sprintf("nameserver %v\n", networkGateway))
}

// writeHosts makes /etc/hosts where there is none: programs expect that localhost has an address without asking anybody.
func writeHosts(root string) error {
	path := filepath.Join(root, "etc/hosts")
	text, err := os.ReadFile(path)
	if err == nil && strings.TrimSpace(string(text)) != "" {
		return nil
	}
	return renewFile(path, "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n")
}

// renewFile writes a file anew. What is there may be a link that leads nowhere, as images that expect systemd-resolved have it.
func renewFile(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

func interfaceIndex(name string) (uint32, error) {
	var index uint32
	err := withInterface(name, func(fd int, request *unix.Ifreq) error {
		if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request); err != nil {
			return err
		}
		index = request.Uint32()
		return nil
	})
	return index, err
}

// addressUp is `ip address add PREFIX dev NAME` and `ip link set NAME up` (netdevice(7)).
func addressUp(name string, prefix netip.Prefix) error {
	mask := make([]byte, 4)
	binary.BigEndian.PutUint32(mask, ^uint32(0)<<(32-prefix.Bits()))
	return withInterface(name, func(fd int, request *unix.Ifreq) error {
		for _, set := range []struct {
			code  uint
			value []byte
		}{{unix.SIOCSIFADDR, prefix.Addr().AsSlice()}, {unix.SIOCSIFNETMASK, mask}} {
			if err := request.SetInet4Addr(set.value); err != nil {
				return err
			}
			if err := unix.IoctlIfreq(fd, set.code, request); err != nil {
				return err
			}
		}
		return setUp(fd, request)
	})
}

// loopbackUp is `ip link set lo up`.
func loopbackUp() error {
	if err := withInterface("lo", setUp); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	return nil
}

func setUp(fd int, request *unix.Ifreq) error {
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}

func withInterface(name string, f func(fd int, request *unix.Ifreq) error) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	return f(fd, request)
}

// addDefaultRoute is `ip route add default via GATEWAY` by one message (rtnetlink(7)).
func addDefaultRoute(index uint32, gateway netip.Addr) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, defaultRoute(index, gateway), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, err := unix.Read(fd, answer)
	if err != nil {
		return err
	}
	const errorAt = unix.NLMSG_HDRLEN
	if n < errorAt+4 || binary.NativeEndian.Uint16(answer[4:]) != unix.NLMSG_ERROR {
		return fmt.Errorf("netlink answered %d bytes that are no acknowledgement", n)
	}
	if code := int32(binary.NativeEndian.Uint32(answer[errorAt:])); code != 0 && -code != int32(unix.EEXIST) {
		return unix.Errno(-code)
	}
	return nil
}

// defaultRoute is RTM_NEWROUTE with the gateway and the interface.
func defaultRoute(index uint32, gateway netip.Addr) []byte {
	order := binary.NativeEndian
	message := make([]byte, unix.NLMSG_HDRLEN)
	message = append(message, unix.AF_INET, 0, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST) // struct rtmsg
	message = order.AppendUint32(message, 0)
	attribute := func(kind uint16, value []byte) {
		message = order.AppendUint16(message, uint16(4+len(value)))
		message = order.AppendUint16(message, kind)
		message = append(message, value...)
	}
	attribute(unix.RTA_GATEWAY, gateway.AsSlice())
	attribute(unix.RTA_OIF, order.AppendUint32(nil, index))
	order.PutUint32(message, uint32(len(message)))
	order.PutUint16(message[4:], unix.RTM_NEWROUTE)
	order.PutUint16(message[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	return message
}
