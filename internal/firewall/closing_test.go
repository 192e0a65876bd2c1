//go:build linux

package firewall

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/netns"
)

// closer serves a port that closes what the other end closes.
func (w *world) closer(port int) {
	w.Helper()
	var listener net.Listener
	err := w.net.Do(func() (err error) {
		listener, err = net.Listen("tcp4", fmt.Sprintf(":%d", port))
		return err
	})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				conn.Read(make([]byte, 1))
				conn.Close()
			}()
		}
	}()
}

// openAndClose begins and ends connections one after the other, by FINs of both ends or by a reset. It returns when the last has ended for both.
func (w *world) openAndClose(from *netns.Namespace, to string, flows int, reset bool) {
	w.Helper()
	err := from.Do(func() error {
		for range flows {
			conn, err := net.DialTimeout("tcp4", to, patient) // a SYN that was too much comes again
			if err != nil {
				return err
			}
			own := conn.(*net.TCPConn)
			if reset {
				own.SetLinger(0)
			} else if own.CloseWrite(); true {
				io.Copy(io.Discard, conn)
			}
			if err := own.Close(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		w.Fatal(err)
	}
}

const ended, endedCap = 400, 100

// TestHostEndedFlowsAreNotKept: what the connection tracking has of a machine is no more than its cap, also when flows end as fast as they begin.
func TestHostEndedFlowsAreNotKept(t *testing.T) {
	for _, reset := range []bool{false, true} {
		t.Run(fmt.Sprintf("reset %t", reset), func(t *testing.T) {
			w := newWorld(t)
			w.closer(9000)
			m := w.machine(1)
			m.guestCloser("8080")
			m.config.Limits = Limits{Connections: endedCap, NewPerSecond: 1 << 20, NewBurst: 1 << 20}
			m.config.Ingress = []Ingress{{"tcp", 80, 8080, nil}}
			m.allow("198.41.0.4")
			w.openAndClose(m.guest, public1+":9000", ended, reset)
			if n := m.tracked(); n > endedCap {
				t.Errorf("%d entries after %d flows from the guest", n, ended)
			}
			w.openAndClose(w.net, netip.AddrPortFrom(m.config.Slot, 80).String(), ended, reset)
			if n := m.tracked(); n > 2*endedCap {
				t.Errorf("%d entries after as many to the guest", n)
			}
			m.check("tcp:198.41.0.4:80 passes")
		})
	}
}

// guestCloser is closer in the guest.
func (m *machine) guestCloser(port string) {
	m.Helper()
	number := 0
	fmt.Sscan(port, &number)
	(&world{T: m.T, net: m.guest}).closer(number)
}

// TestHostCountsFlowsOfASlot: what the host's connection tracking has of a slot is no more than the slot's cap, whatever its own rules let pass.
func TestHostCountsFlowsOfASlot(t *testing.T) {
	for _, reset := range []bool{false, true} {
		r := newHostRig(t)
		(&world{T: t, net: r.internet}).closer(9000)
		if err := r.table.Admit(address4(slotAddress), endedCap); err != nil {
			t.Fatal(err)
		}
		r.openAndClose(r.slots, outside+":9000", ended, reset)
		if n := r.tracked(r.host); n > endedCap {
			t.Errorf("reset %t: the host has %d entries after %d flows", reset, n, ended)
		}
	}
}

// TestHostCapsFlowsOfASlot: the host drops new flows beyond the cap, of this slot's only and as long as it has the cap.
func TestHostCapsFlowsOfASlot(t *testing.T) {
	r := newHostRig(t)
	const other = "100.64.0.6"
	r.configure(r.slots, uplink, other+"/32", "", "")
	r.configure(r.host, "mvm-0123abcd", "", "", other)
	for range 2 { // the second time changes nothing
		if err := r.table.Admit(address4(slotAddress), endedCap); err != nil {
			t.Fatal(err)
		}
		for range ended {
			r.datagram(r.slots, slotAddress, outside+":5000")
		}
		if n := r.tracked(r.host); n > endedCap+1 || n < endedCap/2 { // one is the other slot's
			t.Errorf("the host has %d entries", n)
		}
		r.stays(r.slots, slotAddress, outside+":5000")
		r.passes(r.slots, other, outside+":5000")
	}
	if err := r.table.Admit(address4(slotAddress), 2*ended); err != nil {
		t.Fatal(err)
	}
	r.passes(r.slots, slotAddress, outside+":5000")
	if err := r.table.Admit(address4(slotAddress), 1); err != nil {
		t.Fatal(err)
	}
	r.datagram(r.slots, slotAddress, outside+":5000")
	r.stays(r.slots, slotAddress, outside+":5000")
	if err := r.table.Unpublish(address4(slotAddress)); err != nil {
		t.Fatal(err)
	}
	r.passes(r.slots, slotAddress, outside+":5000")
}

// datagram sends one from a port of its own.
func (r *hostRig) datagram(from *netns.Namespace, source, to string) {
	r.Helper()
	err := from.Do(func() error {
		dialer := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(source)}}
		conn, err := dialer.Dial("udp4", to)
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Write([]byte("x"))
		return err
	})
	if err != nil {
		r.Fatal(err)
	}
}
