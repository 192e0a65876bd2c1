//go:build linux

package firewall

import (
	"fmt"
	"sync"

	"github.com/google/nftables"

	"github.com/tangle-network/microvm-runtime/internal/netns"
)

// Slot is the rules of one machine's namespace. Its methods may be called at the same time, and other processes may have Slots of the same namespace.
type Slot struct {
	mu   sync.Mutex // a request and its answers belong together
	conn *conn
	ns   *netns.Namespace
}

// OpenSlot opens the rules of a namespace, whose handle must stay open as long as the Slot. It changes nothing.
func OpenSlot(ns *netns.Namespace) (*Slot, error) {
	c, err := dial(ns)
	if err != nil {
		return nil, err
	}
	return &Slot{conn: c, ns: ns}, nil
}

// Close releases the socket and leaves the rules.
func (s *Slot) Close() error { return s.conn.Close() }

// Install makes the rules what the config says, in one transaction: at first, and for each update. An error says that nothing was changed. The package's documentation
// says what happens to flows.
func (s *Slot) Install(c Config) error { return s.install(c, false) }

// Reset is Install without rules and published ports, and without anything that was there: counters are 0, sets and token buckets as new.
func (s *Slot) Reset(c Config) error {
	c.Rules, c.Ingress, c.VerifySNI, c.GatePort = nil, nil, false, 0
	return s.install(c, true)
}

func (s *Slot) install(c Config, afresh bool) error {
	if err := c.check(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.conn.install(slotTables(c), afresh); err != nil {
		return fmt.Errorf("install rules of slot %s: %w", c.Slot, err)
	}
	return nil
}

// slotTable4 is the handle of a slot's table of family ip.
func slotTable4() nftables.Table {
	return nftables.Table{Name: tableName, Family: nftables.TableFamilyIPv4}
}
