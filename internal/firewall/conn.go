//go:build linux

package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"

	"github.com/tangle-network/microvm-runtime/internal/netns"
)

// Numbers of include/uapi/linux/netfilter/nfnetlink.h and nf_tables.h, as far as the nftables library hides them.
const (
	familyNetfilter = 12 // NETLINK_NETFILTER

	messageBatchBegin, messageBatchEnd = 0x10, 0x11
	batchGeneration                    = 1 // NFNL_BATCH_GENID

	subsystem                                        = 10 << 8 // NFNL_SUBSYS_NFTABLES
	messageGetTable, messageDelTable                 = subsystem | 1, subsystem | 2
	messageGetChain, messageDelChain, messageDelRule = subsystem | 4, subsystem | 5, subsystem | 8
	messageGetSet, messageGetElements                = subsystem | 10, subsystem | 13
	messageNewGeneration, messageGetGeneration       = subsystem | 15, subsystem | 16
	messageNewElements                               = subsystem | 12
	messageNewObject, messageGetObject               = subsystem | 18, subsystem | 19
	attrTable, attrObjectName, attrChainName         = 1, 2, 3 // attrObjectName is also that of sets
	attrObjectType, attrObjectData                   = 3, 4
	attrGeneration                                   = 1
)

// buffers are bigger than any transaction of ours, and than its answers.
const buffers = 8 << 20

// patience is how long the kernel may take for one request.
const patience = 30 * time.Second

// conn is a netlink socket of one namespace. It is for one caller at a time.
type conn struct {
	*netlink.Conn
	sequence uint32
}

// dial opens a socket in a namespace, nil for the caller's.
func dial(ns *netns.Namespace) (*conn, error) {
	var c *netlink.Conn
	open := func() (err error) {
		c, err = netlink.Dial(familyNetfilter, nil)
		return err
	}
	err := error(nil)
	if ns == nil {
		err = open()
	} else {
		err = ns.Do(open)
	}
	if err != nil {
		return nil, fmt.Errorf("open nf_tables: %w", err)
	}
	err = errors.Join(c.SetReadBuffer(buffers), c.SetWriteBuffer(buffers))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open nf_tables: %w", err), c.Close())
	}
	c.SetOption(netlink.ExtendedAcknowledge, true) // what an old kernel lacks, its errors lack
	return &conn{Conn: c}, nil
}

// Errors that callers act upon.
var errChanged = errors.New("nf_tables were changed by another meanwhile")

// transact sends a batch, which the kernel takes as a whole or not at all. With a generation other than 0 it is refused, with errChanged, when something was changed since.
func (c *conn) transact(b *batch, generation uint32) error {
	orders, err := b.encode()
	if err != nil || len(orders) == 0 {
		return err
	}
	begin := []byte{0, 0, 0, subsystem >> 8} // nfgenmsg: the subsystem, big endian
	if generation != 0 {
		begin = append(begin, attribute(batchGeneration, be32(generation))...)
	}
	messages := make([]netlink.Message, 0, len(orders)+2)
	messages = append(messages, netlink.Message{Header: netlink.Header{Type: messageBatchBegin, Flags: netlink.Request}, Data: begin})
	messages = append(messages, orders...)
	messages[len(messages)-1].Header.Flags |= netlink.Acknowledge
	messages = append(messages, netlink.Message{Header: netlink.Header{Type: messageBatchEnd, Flags: netlink.Request}, Data: []byte{0, 0, 0, subsystem >> 8}})
	first := c.sequence + 1
	for i := range messages {
		c.sequence++
		messages[i].Header.Sequence = c.sequence
	}
	if err := c.send(messages); err != nil {
		return err
	}
	return c.outcome(first, b.labels)
}

func (c *conn) send(messages []netlink.Message) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, err := c.SendMessages(messages)
	return err
}

// outcome waits for the answer to the last message of a batch. Message 0 of it, whose number is first, is its beginning, whose error is one of the whole.
func (c *conn) outcome(first uint32, labels []string) error {
	var refused error
	for {
		answers, err := c.Receive()
		var failed *netlink.OpError
		if err != nil && (!errors.As(err, &failed) || failed.Sequence == 0) {
			return fmt.Errorf("nf_tables: the answer is lost: %w", err)
		}
		if err != nil {
			index := int(failed.Sequence - first)
			switch {
			case index < 0 || index > len(labels): // of an earlier batch
				continue
			case index == 0 && failed.Err == syscall.ERESTART:
				return errChanged
			case index == 0:
				return errors.Join(refused, fmt.Errorf("nf_tables: the kernel refuses all of it: %w", explained(failed)))
			case refused == nil:
				refused = fmt.Errorf("nf_tables: the kernel refuses %s: %w", labels[index-1], explained(failed))
			}
			if index == len(labels) {
				return refused
			}
			continue
		}
		for _, answer := range answers {
			if answer.Header.Type == netlink.Error && answer.Header.Sequence == first+uint32(len(labels)) {
				return refused
			}
		}
	}
}

// explained is the kernel's error with what it says in words.
func explained(err *netlink.OpError) error {
	if err.Message != "" {
		return fmt.Errorf("%w (%s)", err.Err, err.Message)
	}
	return err.Err
}

// request sends one request and returns its answers.
func (c *conn) request(kind netlink.HeaderType, flags netlink.HeaderFlags, family nftables.TableFamily, attributes []byte) ([]netlink.Message, error) {
	c.sequence++
	sent := netlink.Message{
		Header: netlink.Header{Type: kind, Flags: netlink.Request | flags, Sequence: c.sequence}, Data: append([]byte{byte(family), 0, 0, 0}, attributes...),
	}
	if err := c.send([]netlink.Message{sent}); err != nil {
		return nil, err
	}
	for {
		answers, err := c.Receive()
		var failed *netlink.OpError
		if errors.As(err, &failed) && failed.Sequence != 0 {
			if failed.Sequence != c.sequence {
				continue
			}
			return nil, explained(failed)
		}
		if err != nil {
			return nil, err
		}
		if len(answers) == 0 && flags&netlink.Dump == netlink.Dump || len(answers) > 0 && answers[0].Header.Sequence == c.sequence {
			return answers, nil
		}
	}
}

// generation returns the number that every change counts up.
func (c *conn) generation() (uint32, error) {
	answers, err := c.request(messageGetGeneration, 0, 0, nil)
	if err != nil {
		return 0, fmt.Errorf("nf_tables: %w", err)
	}
	for _, answer := range answers {
		if answer.Header.Type == messageNewGeneration {
			return number32(values(answer.Data[4:])[attrGeneration]), nil
		}
	}
	return 0, fmt.Errorf("nf_tables: no generation: %w", io.ErrUnexpectedEOF)
}

// attribute encodes one netlink attribute.
func attribute(kind uint16, value []byte) []byte {
	text, _ := netlink.MarshalAttributes([]netlink.Attribute{{Type: kind, Data: value}}) // of short values can't fail
	return text
}

// zeroed is a name as the kernel reads it.
func zeroed(name string) []byte { return append([]byte(name), 0) }

// nested encodes an attribute that holds attributes.
func nested(kind uint16, attributes ...[]byte) []byte {
	return attribute(kind|syscall.NLA_F_NESTED, slices.Concat(attributes...))
}

// each calls f for each attribute; what isn't any ends it.
func each(text []byte, f func(kind uint16, value []byte)) {
	decoder, err := netlink.NewAttributeDecoder(text)
	if err != nil {
		return
	}
	for decoder.Next() {
		f(decoder.Type(), decoder.Bytes())
	}
}

// values returns attributes of which each is there once.
func values(text []byte) map[uint16][]byte {
	out := map[uint16][]byte{}
	each(text, func(kind uint16, value []byte) { out[kind] = value })
	return out
}

// number32 and number64 read a number of the network's byte order, 0 when it isn't there.
func number32(value []byte) uint32 {
	if len(value) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(value)
}

func number64(value []byte) uint64 {
	if len(value) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(value)
}
