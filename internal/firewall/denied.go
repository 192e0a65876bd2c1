//go:build linux

package firewall

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strconv"
	"syscall"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"

	"github.com/tangle-network/microvm-runtime/egress"
)

// Denied is a flow that no rule of the policy allows.
type Denied struct {
	Protocol egress.Protocol // tcp, udp, icmp, or another's number in decimal.
	Address  netip.Addr
	Port     uint16 // 0 where the protocol has none.
	Counter
}

// Denied returns where denied flows went in the last ten minutes, most packets first.
func (s *Slot) Denied() ([]Denied, error) {
	table := slotTable4()
	s.mu.Lock()
	defer s.mu.Unlock()
	elements, err := s.conn.elements(&nftables.Set{Table: &table, Name: deniedSet})
	if err != nil {
		return nil, err
	}
	var out []Denied
	for _, e := range elements {
		if len(e.key) < 10 { // protocol, address and port, each at a multiple of four bytes
			continue
		}
		out = append(out, Denied{
			Protocol: protocolName(e.key[0]), Address: netip.AddrFrom4([4]byte(e.key[4:8])), Port: binary.BigEndian.Uint16(e.key[8:]), Counter: e.counted,
		})
	}
	slices.SortFunc(out, func(a, b Denied) int {
		if a.Packets != b.Packets {
			return int(min(b.Packets, 1<<30)) - int(min(a.Packets, 1<<30))
		}
		return a.Address.Compare(b.Address)
	})
	return out, nil
}

func protocolName(n byte) egress.Protocol {
	switch n {
	case protoTCP:
		return egress.TCP
	case protoUDP:
		return egress.UDP
	case protoICMP:
		return egress.ICMP
	default:
		return egress.Protocol(strconv.Itoa(int(n)))
	}
}

// Numbers of include/uapi/linux/netfilter/nfnetlink_log.h.
const (
	messageLogPacket, messageLogConfig = 4 << 8, 4<<8 | 1
	logCommand, logMode, logThreshold  = 1, 2, 5
	logCommandBind, logCopyPacket      = 1, 2
	logPayload                         = 9
)

// WatchDenied returns denied flows as they are denied, at most ten a second, until the context ends; then without an error. One watcher of a slot is possible at a
// time: to another the first error is syscall.EBUSY.
func (s *Slot) WatchDenied(ctx context.Context) iter.Seq2[Denied, error] {
	return s.watchDenied(ctx, func() {})
}

// watchDenied calls ready when from now on nothing is missed.
func (s *Slot) watchDenied(ctx context.Context, ready func()) iter.Seq2[Denied, error] {
	return func(yield func(Denied, error) bool) {
		c, err := s.openLog()
		if err != nil {
			yield(Denied{}, fmt.Errorf("watch denied flows: %w", err))
			return
		}
		ready()
		stop := context.AfterFunc(ctx, func() { c.Close() })
		defer func() {
			if stop() {
				c.Close()
			}
		}()
		for {
			messages, err := c.Receive()
			if ctx.Err() != nil {
				return
			}
			if errors.Is(err, syscall.ENOBUFS) { // some were too many; they are counted all the same
				continue
			}
			if err != nil {
				yield(Denied{}, fmt.Errorf("watch denied flows: %w", err))
				return
			}
			for _, m := range messages {
				if d, ok := deniedIn(m); ok && !yield(d, nil) {
					return
				}
			}
		}
	}
}

// openLog opens a socket that gets the packets of the group, one by one.
func (s *Slot) openLog() (*netlink.Conn, error) {
	var c *netlink.Conn
	err := s.ns.Do(func() (err error) {
		c, err = netlink.Dial(familyNetfilter, nil)
		return err
	})
	if err != nil {
		return nil, err
	}
	mode := append(be32(deniedCopied), logCopyPacket, 0)
	for _, order := range [][]byte{
		attribute(logCommand, []byte{logCommandBind}),
		append(attribute(logMode, mode), attribute(logThreshold, be32(1))...),
	} {
		_, err := c.Execute(netlink.Message{
			Header: netlink.Header{Type: messageLogConfig, Flags: netlink.Request | netlink.Acknowledge}, Data: append([]byte{0, 0, 0, deniedGroup}, order...),
		})
		if errors.Is(err, syscall.EPERM) { // the kernel's word for a group that another socket has
			err = syscall.EBUSY
		}
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

// deniedIn reads the packet of a message.
func deniedIn(m netlink.Message) (Denied, bool) {
	if m.Header.Type != messageLogPacket || len(m.Data) < 4 {
		return Denied{}, false
	}
	packet := values(m.Data[4:])[logPayload]
	if len(packet) < 20 || packet[0]>>4 != 4 {
		return Denied{}, false
	}
	d := Denied{Protocol: protocolName(packet[9]), Address: netip.AddrFrom4([4]byte(packet[16:20])), Counter: Counter{1, uint64(binary.BigEndian.Uint16(packet[2:]))}}
	if begin := int(packet[0]&15) * 4; (packet[9] == protoTCP || packet[9] == protoUDP) && len(packet) >= begin+4 {
		d.Port = binary.BigEndian.Uint16(packet[begin+2:])
	}
	return d, true
}
