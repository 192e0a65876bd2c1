//go:build linux

package guard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/tangle-network/microvm-runtime/egress"
	"github.com/tangle-network/microvm-runtime/internal/firewall"
	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/resolver"
	"github.com/tangle-network/microvm-runtime/internal/sni"
	"github.com/tangle-network/microvm-runtime/internal/unix"
)

const (
	maxDenied = 1024 // names that are remembered of one machine
	sweepFrom = 4096 // the least of machine.sweepAt
)

// machine is one machine, from its first entry on until another has its slot.
type machine struct {
	uid  string
	ns   *netns.Namespace
	slot *firewall.Slot

	gating sync.Mutex
	gate   *sni.Gate // nil where there is none

	granting sync.RWMutex // held for writing by who ends it
	gone     bool         // another may have the slot: nothing is opened in it any more

	mu      sync.Mutex
	entry   Entry
	file    fs.FileInfo // that the entry was read from
	policy  *resolver.Policy
	granted map[grant]time.Time // until when
	sweepAt int                 // how many granted there are when those that have expired are forgotten
	denied  map[string]uint64   // names, and addresses that no name opens, and how often
}

type grant struct {
	rule    uint32
	address netip.Addr
}

// open opens the rules of the machine's slot.
func open(e Entry, file fs.FileInfo) (*machine, error) {
	ns, err := netns.Open(e.Namespace)
	if err != nil {
		return nil, err
	}
	slot, err := firewall.OpenSlot(ns)
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	m := &machine{uid: e.UID, ns: ns, slot: slot, granted: map[grant]time.Time{}, sweepAt: sweepFrom, denied: map[string]uint64{}}
	m.update(e, file)
	return m, nil
}

// update makes another version of its entry the machine's.
func (m *machine) update(e Entry, file fs.FileInfo) {
	policy := &resolver.Policy{Grant: m.grant}
	for _, rule := range e.Rules {
		if rule.Rule != (egress.Rule{}) {
			policy.Rules = append(policy.Rules, resolver.Rule(rule))
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.entry, m.file, m.policy = e, file, policy
}

// is says whether an entry is of this machine, in the namespace that it had.
func (m *machine) is(e Entry) bool {
	if m == nil || m.uid != e.UID {
		return false
	}
	ns, err := netns.Open(e.Namespace)
	if err != nil {
		return false
	}
	defer ns.Close()
	return ns.Is(m.ns)
}

// now returns the machine's policy, false when its file is not the one that it was read from any more.
func (m *machine) now(dir string) (*resolver.Policy, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	file, err := os.Stat(entryPath(dir, m.entry.Address))
	return m.policy, err == nil && os.SameFile(file, m.file) && file.ModTime().Equal(m.file.ModTime())
}

// errGone is of a machine whose slot is not its own any more.
var errGone = errors.New("the machine is gone")

// grant opens an address for a rule.
func (m *machine) grant(rule uint32, address netip.Addr, ttl time.Duration) error {
	m.granting.RLock()
	defer m.granting.RUnlock()
	if m.gone {
		return errGone
	}
	if err := m.slot.Grant(rule, address, ttl); err != nil {
		return err
	}
	m.remember(grant{rule, address}, ttl)
	return nil
}

// remember notes for the gate what is open, and until when: as in the firewall, the longest of all answers counts.
func (m *machine) remember(which grant, ttl time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if len(m.granted) >= m.sweepAt {
		maps.DeleteFunc(m.granted, func(_ grant, until time.Time) bool { return until.Before(now) })
		m.sweepAt = max(sweepFrom, 2*len(m.granted)) // so that what a machine has open costs each answer the same
	}
	if until := now.Add(ttl); m.granted[which].Before(until) {
		m.granted[which] = until
	}
}

// leave ends the granting at once. When it returns none is under way.
func (m *machine) leave() {
	m.granting.Lock()
	defer m.granting.Unlock()
	m.gone = true
}

// deny remembers a name, or an address, that was denied.
func (m *machine) deny(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.denied[name]; known || len(m.denied) < maxDenied {
		m.denied[name]++
	}
}

// allows says whether TLS for a name may go somewhere: a rule has the name and the port, and the address was an answer for it.
func (m *machine) allows(name string, to netip.AddrPort) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.policy.Rules, func(r resolver.Rule) bool {
		if r.Name == "" || !r.MatchName(name) || r.FirstPort != 0 && (to.Port() < r.FirstPort || to.Port() > r.LastPort) {
			return false
		}
		return m.granted[grant{r.ID, to.Addr().Unmap()}].After(time.Now())
	})
}

// openGate opens the machine's gate, which listens and speaks in its namespace.
func (m *machine) openGate() error {
	listener, err := within(m.ns, func() (net.Listener, error) { return net.Listen("tcp4", fmt.Sprintf("172.16.0.1:%d", GatePort)) })
	if err != nil {
		return fmt.Errorf("open gate of %s: %w", m.uid, err)
	}
	m.gate = sni.Serve(listener, sni.Options{
		Original: original,
		Allowed:  m.allows,
		Dial:     m.dial,
		Denied: func(d sni.Denied) {
			if d.Name != "" {
				m.deny(d.Name)
			}
		},
	})
	return nil
}

func original(conn net.Conn) (netip.AddrPort, error) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("%T is no TCP connection", conn)
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, err
	}
	return unix.OriginalDestination(raw)
}

// dial connects from the machine's namespace by a socket that the firewall knows as the gate's.
func (m *machine) dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error { return unix.SetMark(raw, firewall.GateMark) }}
	return within(m.ns, func() (net.Conn, error) { return dialer.DialContext(ctx, "tcp4", to.String()) })
}

// within makes a socket in a namespace.
func within[T any](ns *netns.Namespace, make func() (T, error)) (made T, err error) {
	err = ns.Do(func() error {
		made, err = make()
		return err
	})
	return made, err
}

// close ends the gate with all that it carries.
func (m *machine) close() error {
	m.leave()
	var err error
	if m.gate != nil {
		err = m.gate.Close()
	}
	return errors.Join(err, m.slot.Close(), m.ns.Close())
}
