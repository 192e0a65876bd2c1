package sni

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	maxHello       = 16 << 10 // bytes of the message; browsers send 2 KiB
	maxRecords     = 32       // that it may come in
	recordHeader   = 5
	messageHeader  = 4
	randomBytes    = 32
	typeHandshake  = 22
	typeHello      = 1
	extensionName  = 0
	extensionECH   = 0xfe0d
	nameIsHostname = 0
)

// ErrNoName is returned for a hello that asks for no name.
var ErrNoName = errors.New("the client asks for no name")

// ErrNotTLS is returned for a stream that doesn't begin with a hello, or with one that is not well formed.
var ErrNotTLS = errors.New("no TLS hello")

// Hello is what a client says first.
type Hello struct {
	Name      string // As the client says it, of 1 to 255 bytes. It may be anything: judge it as untrusted.
	Encrypted bool   // There is an encrypted hello inside, with another name perhaps, or a fake of one (GREASE).
	Raw       []byte // All that was read, records and all.
}

// ReadHello reads a hello, and not a byte more. Where its errors are ErrNoName or ErrNotTLS, Raw is what was read; others are the reader's.
func ReadHello(r io.Reader) (Hello, error) {
	var hello Hello
	var message []byte
	for range maxRecords {
		payload, err := hello.readRecord(r)
		if err != nil {
			return hello, err
		}
		message = append(message, payload...)
		if message[0] != typeHello {
			return hello, fmt.Errorf("%w: it begins with a message of type %d", ErrNotTLS, message[0])
		}
		if len(message) < messageHeader {
			continue
		}
		switch length := messageHeader + int(message[1])<<16 + int(message[2])<<8 + int(message[3]); {
		case length > maxHello:
			return hello, fmt.Errorf("%w: it has %d bytes, more than %d", ErrNotTLS, length, maxHello)
		case len(message) > length:
			return hello, fmt.Errorf("%w: something follows it in its record", ErrNotTLS)
		case len(message) == length:
			return hello, hello.parse(message[messageHeader:])
		}
	}
	return hello, fmt.Errorf("%w: it comes in more than %d records", ErrNotTLS, maxRecords)
}

func (h *Hello) readRecord(r io.Reader) ([]byte, error) {
	var header [recordHeader]byte
	if err := h.read(r, header[:]); err != nil {
		return nil, err
	}
	length := int(binary.BigEndian.Uint16(header[3:]))
	if header[0] != typeHandshake || header[1] != 3 || header[2] > 4 || length == 0 || length > maxHello {
		return nil, fmt.Errorf("%w: it begins with %x", ErrNotTLS, header)
	}
	if len(h.Raw)+length > maxHello+maxRecords*recordHeader {
		return nil, fmt.Errorf("%w: it has more than %d bytes", ErrNotTLS, maxHello)
	}
	payload := make([]byte, length)
	return payload, h.read(r, payload)
}

// read keeps what it has read, also of a stream that ends too early.
func (h *Hello) read(r io.Reader, into []byte) error {
	n, err := io.ReadFull(r, into)
	h.Raw = append(h.Raw, into[:n]...)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends after %d bytes", ErrNotTLS, len(h.Raw))
	}
	return err
}

// parse reads the body of a ClientHello (RFC 8446, 4.1.2).
func (h *Hello) parse(body []byte) error {
	c := cursor{rest: body}
	c.take(2 + randomBytes) // version, random
	session := c.vector(1)
	suites := c.vector(2)
	compression := c.vector(1)
	if c.bad || len(session) > 32 || len(suites) < 2 || len(suites)%2 != 0 || len(compression) == 0 {
		return fmt.Errorf("%w: its beginning is malformed", ErrNotTLS)
	}
	if len(c.rest) == 0 { // TLS 1.0 knew none
		return ErrNoName
	}
	extensions := cursor{rest: c.vector(2)}
	if c.bad || len(c.rest) > 0 {
		return fmt.Errorf("%w: its extensions are malformed", ErrNotTLS)
	}
	return h.parseExtensions(extensions)
}

func (h *Hello) parseExtensions(c cursor) error {
	seen := map[uint16]bool{}
	for len(c.rest) > 0 {
		head := c.take(2)
		data := c.vector(2)
		if c.bad {
			return fmt.Errorf("%w: its extensions are malformed", ErrNotTLS)
		}
		kind := binary.BigEndian.Uint16(head)
		if seen[kind] {
			return fmt.Errorf("%w: its extension %d is there twice", ErrNotTLS, kind)
		}
		seen[kind] = true
		if kind == extensionName && !h.parseName(data) {
			return fmt.Errorf("%w: its extension for the name is malformed", ErrNotTLS)
		}
	}
	h.Encrypted = seen[extensionECH]
	if !seen[extensionName] {
		return ErrNoName
	}
	return nil
}

// parseName reads a list of exactly one host name (RFC 6066, 3): no other list was ever in use.
func (h *Hello) parseName(data []byte) bool {
	c := cursor{rest: data}
	list := cursor{rest: c.vector(2)}
	kind := list.take(1)
	name := list.vector(2)
	if c.bad || list.bad || len(c.rest) > 0 || len(list.rest) > 0 || kind[0] != nameIsHostname || len(name) == 0 || len(name) > 255 {
		return false
	}
	h.Name = string(name)
	return true
}

// cursor reads from the front. When there is too little it is bad from then on, and what it returns is nil.
type cursor struct {
	rest []byte
	bad  bool
}

func (c *cursor) take(n int) []byte {
	if c.bad || len(c.rest) < n {
		c.bad, c.rest = true, nil
		return nil
	}
	taken := c.rest[:n]
	c.rest = c.rest[n:]
	return taken
}

// vector takes what has its length in front, in so many bytes.
func (c *cursor) vector(lengthBytes int) []byte {
	n := 0
	for _, b := range c.take(lengthBytes) {
		n = n<<8 | int(b)
	}
	return c.take(n)
}
