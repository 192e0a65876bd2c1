//go:build linux

package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
)

// Errors of Grant.
var (
	// ErrNoRule is returned for a rule that is none of the slot's name rules, or not any more.
	ErrNoRule = errors.New("no such name rule")
	// ErrFull is returned when a name rule has 4,096 addresses already.
	ErrFull = errors.New("the name rule has as many addresses as it can have")
)

// Grant opens an address to new flows by a name rule, for the time to live, in milliseconds at least one. An address that is open longer already stays so.
func (s *Slot) Grant(rule uint32, address netip.Addr, ttl time.Duration) error {
	if address = address.Unmap(); !address.Is4() {
		return fmt.Errorf("grant %s: must be IPv4", address)
	}
	table := slotTable4()
	names := &nftables.Set{Table: &table, Name: nameSet(rule), KeyType: nftables.TypeIPAddr, HasTimeout: true}
	ttl = max(ttl, time.Millisecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.grant(names, nftables.SetElement{Key: addr(address), Timeout: ttl})
	switch {
	case errors.Is(err, syscall.ENOENT):
		err = ErrNoRule
	case errors.Is(err, syscall.ENFILE):
		err = ErrFull
	}
	if err != nil {
		return fmt.Errorf("grant %s to rule %d: %w", address, rule, err)
	}
	return nil
}

func (s *Slot) grant(names *nftables.Set, element nftables.SetElement) error {
	there, err := s.conn.element(names, element.Key)
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		return err
	}
	if there.expires >= element.Timeout {
		return nil
	}
	// An element that is there keeps its time when it is added again (until Linux 6.12): it is removed, and so that it can be, added before.
	b := newBatch()
	b.addElements(names, []nftables.SetElement{element})
	b.deleteElements(names, []nftables.SetElement{{Key: element.Key}})
	b.addElements(names, []nftables.SetElement{element})
	return s.conn.transact(b, 0)
}

// element reads one of a set. syscall.ENOENT when it isn't there.
func (c *conn) element(of *nftables.Set, key []byte) (element, error) {
	b := newBatch()
	b.addElements(of, []nftables.SetElement{{Key: key}}) // the question looks as the order to add it
	orders, err := b.encode()
	if err != nil {
		return element{}, err
	}
	answers, err := c.request(messageGetElements, 0, of.Table.Family, orders[0].Data[4:])
	if err != nil {
		return element{}, err
	}
	for _, e := range elementsIn(answers) {
		return e, nil
	}
	return element{}, syscall.ENOENT
}

// element is one of a set, as it was read.
type element struct {
	key     []byte
	value   []byte
	expires time.Duration
	counted Counter
	flows   int // that it is capped at
}

// elements reads a set.
func (c *conn) elements(of *nftables.Set) ([]element, error) {
	question := append(attribute(1, append([]byte(of.Table.Name), 0)), attribute(2, append([]byte(of.Name), 0))...)
	answers, err := c.request(messageGetElements, netlink.Dump, of.Table.Family, question)
	if err != nil {
		return nil, fmt.Errorf("read set %s: %w", of.Name, err)
	}
	return elementsIn(answers), nil
}

// elementsIn decodes NFTA_SET_ELEM_LIST_ELEMENTS of each message.
func elementsIn(answers []netlink.Message) []element {
	const list, key, data, expiration, expression, expressionData = 3, 1, 2, 5, 7, 2
	var out []element
	for _, answer := range answers {
		if len(answer.Data) < 4 {
			continue
		}
		each(values(answer.Data[4:])[list], func(_ uint16, text []byte) {
			fields := values(text)
			out = append(out, element{
				key: values(fields[key])[1], value: values(fields[data])[1], expires: time.Duration(number64(fields[expiration])) * time.Millisecond,
				counted: counterIn(values(fields[expression])[expressionData]), flows: capIn(values(fields[expression])[expressionData]),
			})
		})
	}
	return out
}
