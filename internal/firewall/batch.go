//go:build linux

package firewall

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
)

// batch collects the messages of one transaction. The nftables library encodes them, and conn sends them: the library's own Flush lets the kernel repeat every rule and
// acknowledge every message, and from some hundred rules on says that a transaction failed, which was committed, because the answers find no room.
type batch struct {
	encoder  *nftables.Conn
	messages []netlink.Message
	labels   []string // What each message is about.
	sets     uint32
	own      map[int]netlink.Message // Those that the library can't encode, by their index.
	further  map[int][]byte          // Attributes that the library leaves out of a message.
	err      error
}

// errEncoded ends the library's Flush once the messages are taken: at once, because what is not permitted has no more answers.
var errEncoded = fmt.Errorf("encoded: %w", os.ErrPermission)

func newBatch() *batch {
	b := &batch{own: map[int]netlink.Message{}, further: map[int][]byte{}}
	b.encoder, b.err = nftables.New(nftables.WithTestDial(func(messages []netlink.Message) ([]netlink.Message, error) {
		if len(messages) > 0 { // it also asks for an answer
			b.messages = messages[1 : len(messages)-1] // without the batch's begin and end
		}
		return nil, errEncoded
	}))
	return b
}

// add calls the library for one message.
func (b *batch) add(label string, call func(*nftables.Conn) error) {
	if b.err != nil {
		return
	}
	b.labels = append(b.labels, label)
	if err := call(b.encoder); err != nil {
		b.err = fmt.Errorf("encode %s: %w", label, err)
	}
}

// encode returns the messages, without a wish for answers.
func (b *batch) encode() ([]netlink.Message, error) {
	if b.err != nil || len(b.labels) == 0 {
		return nil, b.err
	}
	if err := b.encoder.Flush(); !errors.Is(err, errEncoded) {
		return nil, fmt.Errorf("encode: %w", err)
	}
	if len(b.messages) != len(b.labels) {
		return nil, fmt.Errorf("encode: %d messages for %d orders", len(b.messages), len(b.labels))
	}
	for i, message := range b.own {
		b.messages[i] = message
	}
	for i, attributes := range b.further {
		b.messages[i].Data = append(b.messages[i].Data, attributes...)
	}
	for i := range b.messages {
		header := &b.messages[i].Header
		header.Flags &^= netlink.Acknowledge | netlink.Echo
		header.Length, header.PID = 0, 0
	}
	return b.messages, nil
}

// addOwn adds a message of our own encoding; the library encodes another, whose place it takes.
func (b *batch) addOwn(label string, kind netlink.HeaderType, t *nftables.Table, attributes []byte) {
	b.add(label, func(c *nftables.Conn) error { c.AddTable(t); return nil })
	b.own[len(b.labels)-1] = netlink.Message{
		Header: netlink.Header{Type: kind, Flags: netlink.Request | netlink.Create}, Data: slices.Concat([]byte{byte(t.Family), 0, 0, 0}, attribute(attrTable, zeroed(t.Name)), attributes),
	}
}

func (b *batch) addTable(t *nftables.Table) {
	b.add("table "+t.Name, func(c *nftables.Conn) error { c.AddTable(t); return nil })
}

func (b *batch) deleteTable(t *nftables.Table) {
	b.add("the end of table "+t.Name, func(c *nftables.Conn) error { c.DelTable(t); return nil })
}

func (b *batch) addCounter(t *nftables.Table, name string) {
	b.add("counter "+name, func(c *nftables.Conn) error { c.AddObj(&nftables.CounterObj{Table: t, Name: name}); return nil })
}

func (b *batch) deleteCounter(t *nftables.Table, name string) {
	b.add("the end of counter "+name, func(c *nftables.Conn) error { c.DeleteObject(&nftables.CounterObj{Table: t, Name: name}); return nil })
}

func (b *batch) addSet(s nftables.Set, further []byte) {
	b.sets++
	s.ID = b.sets // the library's own numbers come from a variable that nothing guards
	b.add("set "+s.Name, func(c *nftables.Conn) error { return c.AddSet(&s, nil) })
	b.further[len(b.labels)-1] = further
}

func (b *batch) deleteSet(s *nftables.Set) {
	b.add("the end of set "+s.Name, func(c *nftables.Conn) error { c.DelSet(s); return nil })
}

func (b *batch) emptySet(s *nftables.Set) {
	b.add("the emptying of set "+s.Name, func(c *nftables.Conn) error { c.FlushSet(s); return nil })
}

// mostElements is how many elements are in one message: the length of an attribute has 16 bits.
const mostElements = 400

func (b *batch) addElements(s *nftables.Set, elements []nftables.SetElement) {
	for len(elements) > 0 {
		some := elements[:min(len(elements), mostElements)]
		elements = elements[len(some):]
		b.add("elements of set "+s.Name, func(c *nftables.Conn) error { return c.SetAddElements(s, some) })
	}
}

func (b *batch) deleteElements(s *nftables.Set, elements []nftables.SetElement) {
	b.add("the end of elements of set "+s.Name, func(c *nftables.Conn) error { return c.SetDeleteElements(s, elements) })
}

func (b *batch) addChain(ch *nftables.Chain) {
	b.add("chain "+ch.Name, func(c *nftables.Conn) error { c.AddChain(ch); return nil })
}

func (b *batch) deleteChain(ch *nftables.Chain) {
	b.add("the end of chain "+ch.Name, func(c *nftables.Conn) error { c.DelChain(ch); return nil })
}

func (b *batch) emptyChain(ch *nftables.Chain) {
	b.add("the emptying of chain "+ch.Name, func(c *nftables.Conn) error { c.FlushChain(ch); return nil })
}

func (b *batch) addRule(ch *nftables.Chain, number int, exprs []expr.Any) {
	b.add(fmt.Sprintf("rule %d of chain %s", number, ch.Name), func(c *nftables.Conn) error {
		c.AddRule(&nftables.Rule{Table: ch.Table, Chain: ch, Exprs: exprs})
		return nil
	})
}
