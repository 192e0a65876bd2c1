//go:build linux

package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"

	"github.com/tangle-network/microvm-runtime/egress"
)

// Publication leads a port of the host to a port of a slot.
type Publication struct {
	Address  netip.Addr // Of the host; 0.0.0.0 for each that it has.
	Protocol egress.Protocol
	Port     uint16
	To       netip.AddrPort // The slot's address, and the port of its Ingress.
}

func (p Publication) check() error {
	if !p.Address.Is4() || p.Protocol != egress.TCP && p.Protocol != egress.UDP || p.Port == 0 || !p.To.Addr().Is4() || p.To.Port() == 0 {
		return fmt.Errorf("firewall: publication %s must be of IPv4, tcp or udp, and have both ports", p)
	}
	return nil
}

// String returns "tcp 192.0.2.1:8080 → 100.64.0.5:80".
func (p Publication) String() string {
	return fmt.Sprintf("%s %s → %s", p.Protocol, netip.AddrPortFrom(p.Address, p.Port), p.To)
}

// ErrTaken is returned when a port is published already, to somewhere else.
var ErrTaken = errors.New("the port is published already")

// orTaken says what it means when the kernel has another value for a key.
func orTaken(err error) error {
	if errors.Is(err, syscall.EBUSY) || errors.Is(err, syscall.EEXIST) {
		return fmt.Errorf("%w (see what is published): %w", ErrTaken, err)
	}
	return err
}

// Publish leads ports to slots. A port that leads elsewhere already, also by the table of another ID, is ErrTaken, and then nothing is changed; one that leads there is fine.
func (h *Host) Publish(list ...Publication) error {
	for _, p := range list {
		if err := p.check(); err != nil {
			return err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	err := h.change(func(b *batch) error {
		for _, p := range list {
			set, element := h.element(p)
			b.addElements(set, []nftables.SetElement{element})
		}
		return h.others(list)
	})
	if err != nil {
		return fmt.Errorf("publish: %w", orTaken(err))
	}
	return nil
}

// Publishable returns ErrTaken when the table of another ID publishes one of the ports.
func (h *Host) Publishable(list ...Publication) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.others(list)
}

// others looks into the tables of other IDs: of two tables that have a port, the kernel asks one.
func (h *Host) others(list []Publication) error {
	if len(list) == 0 {
		return nil
	}
	answers, err := h.conn.request(messageGetTable, netlink.Dump, nftables.TableFamilyIPv4, nil)
	if err != nil {
		return fmt.Errorf("read nf_tables: %w", err)
	}
	for _, answer := range answers {
		if len(answer.Data) < 4 {
			continue
		}
		name := text(values(answer.Data[4:])[attrTable])
		if !strings.HasPrefix(name, tablePrefix) || name == h.table().Name {
			continue
		}
		there, err := h.publishedIn(nftables.Table{Name: name, Family: nftables.TableFamilyIPv4})
		if errors.Is(err, syscall.ENOENT) { // it goes, or is no such table
			continue
		}
		if err != nil {
			return err
		}
		for _, p := range list {
			if n := slices.IndexFunc(there, p.clashes); n >= 0 {
				return fmt.Errorf("%w: %s, by another state directory's table %s", ErrTaken, there[n], name)
			}
		}
	}
	return nil
}

// clashes says whether both are of one port at one address.
func (p Publication) clashes(other Publication) bool {
	return p.Protocol == other.Protocol && p.Port == other.Port && (p.Address == other.Address || p.Address.IsUnspecified() || other.Address.IsUnspecified())
}

func (h *Host) element(p Publication) (*nftables.Set, nftables.SetElement) {
	table := h.table()
	to := padded(addr(p.To.Addr()), be16(p.To.Port()))
	port := padded([]byte{protocolNumber(p.Protocol)}, be16(p.Port))
	if p.Address.IsUnspecified() {
		return &nftables.Set{Table: &table, Name: publishedAnywhere, IsMap: true}, nftables.SetElement{Key: port, Val: to}
	}
	return &nftables.Set{Table: &table, Name: publishedAt, IsMap: true}, nftables.SetElement{Key: append(addr(p.Address), port...), Val: to}
}

// Admit makes the addresses of the host that a slot may speak to these, and the flows of the slot's that the host's connection tracking has at the same time at most this many,
// 0 for the usual cap. Beyond it the host drops new ones: the slot's own rules have dropped them before. Flows that there are stay counted as long as the cap is the same.
func (h *Host) Admit(slot netip.Addr, flows int, addresses ...netip.Addr) error {
	flows = Limits{Connections: flows}.withDefaults().Connections
	for _, a := range addresses {
		if !slot.Is4() || !a.Is4() {
			return fmt.Errorf("firewall: admission of %s to %s must be of IPv4", slot, a)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.change(func(b *batch) error {
		if err := h.expel(b, slot); err != nil {
			return err
		}
		table := h.table()
		var elements []nftables.SetElement
		for _, a := range addresses {
			elements = append(elements, nftables.SetElement{Key: append(addr(slot), addr(a)...)})
		}
		b.addElements(&nftables.Set{Table: &table, Name: admitted}, elements)
		return h.count(b, slot, flows)
	})
}

// count makes a slot's cap this one, 0 for none.
func (h *Host) count(b *batch, slot netip.Addr, flows int) error {
	table := h.table()
	set := &nftables.Set{Table: &table, Name: countedSet}
	there, err := h.conn.element(set, addr(slot))
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		return err
	}
	if err == nil && there.flows == flows {
		return nil
	}
	if err == nil {
		b.deleteElements(set, []nftables.SetElement{{Key: addr(slot)}})
	}
	if flows > 0 {
		b.addCap(&table, slot, flows)
	}
	return nil
}

// expel ends a slot's admissions.
func (h *Host) expel(b *batch, slot netip.Addr) error {
	table := h.table()
	set := &nftables.Set{Table: &table, Name: admitted}
	there, err := h.conn.elements(set)
	if err != nil {
		return err
	}
	for _, e := range there {
		if len(e.key) == 8 && netip.AddrFrom4([4]byte(e.key)) == slot {
			b.deleteElements(set, []nftables.SetElement{{Key: e.key}})
		}
	}
	return nil
}

// Unpublish ends what leads to a slot's address, and what it is admitted to, and counts its flows no more; nil when there is nothing. Flows that came by it are for who removes them from the
// connection tracking.
func (h *Host) Unpublish(slot netip.Addr) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	err := h.change(func(b *batch) error {
		list, err := h.published()
		if err != nil {
			return err
		}
		for _, p := range list {
			if p.To.Addr() == slot {
				set, element := h.element(p)
				b.deleteElements(set, []nftables.SetElement{{Key: element.Key}})
			}
		}
		return errors.Join(h.expel(b, slot), h.count(b, slot, 0))
	})
	if errors.Is(err, syscall.ENOENT) { // no table
		return nil
	}
	return err
}

// change makes a transaction of what there is; build fills it, again when something was changed meanwhile.
func (h *Host) change(build func(*batch) error) error {
	for range attempts {
		generation, err := h.conn.generation()
		if err != nil {
			return err
		}
		b := newBatch()
		if err := build(b); err != nil {
			return err
		}
		if err := h.conn.transact(b, generation); !errors.Is(err, errChanged) {
			return err
		}
	}
	return errChanged
}

// Published returns what is published, by address and port.
func (h *Host) Published() ([]Publication, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.published()
}

func (h *Host) published() ([]Publication, error) { return h.publishedIn(h.table()) }

func (h *Host) publishedIn(table nftables.Table) ([]Publication, error) {
	var out []Publication
	for name, parts := range map[string]int{publishedAt: 3, publishedAnywhere: 2} {
		elements, err := h.conn.elements(&nftables.Set{Table: &table, Name: name})
		if err != nil {
			return nil, err
		}
		for _, e := range elements {
			if len(e.key) != 4*parts || len(e.value) != 8 {
				continue
			}
			key := append(make([]byte, 12-4*parts), e.key...) // 0.0.0.0 where there is no address
			out = append(out, Publication{
				Address: netip.AddrFrom4([4]byte(key)), Protocol: protocolName(key[4]), Port: binary.BigEndian.Uint16(key[8:]),
				To: netip.AddrPortFrom(netip.AddrFrom4([4]byte(e.value)), binary.BigEndian.Uint16(e.value[4:])),
			})
		}
	}
	slices.SortFunc(out, func(a, b Publication) int { return strings.Compare(a.String(), b.String()) })
	return out, nil
}
