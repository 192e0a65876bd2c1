package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Kind says what a frame is.
type Kind byte

// The kinds of frames. Host to guest: Stdin, StdinEnd, AckStdout, AckStderr, Done, Resize. Guest to host: Stdout, Stderr, StdoutEnd, StderrEnd, AckStdin, Exited, Replaced,
// Incoming, Copied, Event, At. Both ways, of a tunnel or a copy: Data, DataEnd.
const (
	Stdin     Kind = 1  // Payload is data.
	StdinEnd  Kind = 2  // There is no more. Empty.
	Stdout    Kind = 3  // Payload is data.
	Stderr    Kind = 4  // Payload is data.
	StdoutEnd Kind = 5  // Empty.
	StderrEnd Kind = 6  // Empty.
	AckStdin  Kind = 7  // Payload is 8 bytes: how many bytes were taken since the process began.
	AckStdout Kind = 8  // The same of standard output, and
	AckStderr Kind = 9  // of standard error.
	Exited    Kind = 10 // Payload is an Exit in JSON. It comes after both ends.
	Done      Kind = 11 // The host has all; the agent may forget the process. Empty.
	Replaced  Kind = 12 // Another connection has attached to the process, and this one ends. Empty.
	Resize    Kind = 13 // The terminal's window. Payload is rows and columns, 2 bytes each.
	Data      Kind = 14 // Of a tunnel, or a part of a copy. Payload is data.
	DataEnd   Kind = 15 // This side of the tunnel sends no more, or the host has sent all of a copy. Empty.
	Incoming  Kind = 16 // A connection has come to a listener. Payload is 8 bytes: what Accept asks for.
	Copied    Kind = 17 // The agent has sent or taken all of a copy, or can't. Payload is a CopiedResult in JSON.
	Event     Kind = 18 // Something happened in the guest. Payload is a FileEvent or a SystemEvent in JSON.
	At        Kind = 19 // Where the host is to go on with what it sends of a copy. Payload is a Position in JSON.
)

const (
	// MaxPayload bounds a frame's payload in bytes.
	MaxPayload = 64 << 10
	// HeaderSize is how many bytes a frame has before its payload.
	HeaderSize = 5
	lastKind   = At
)

// ErrFrame is returned for bytes that are no frame.
var ErrFrame = errors.New("not a frame")

// Frame is the unit of a stream: kind (1 byte), length of the payload (4 bytes, big endian), payload.
type Frame struct {
	Kind    Kind
	Payload []byte // Valid until the next Read.
}

// Reader reads frames.
type Reader struct {
	r      io.Reader
	header [HeaderSize]byte
	buffer []byte
}

// NewReader returns a Reader of r, which should be buffered.
func NewReader(r io.Reader) *Reader { return &Reader{r: r} }

// Read returns the next frame: io.EOF between frames, io.ErrUnexpectedEOF within one, ErrFrame for what is none.
func (r *Reader) Read() (Frame, error) {
	if _, err := io.ReadFull(r.r, r.header[:]); err != nil {
		return Frame{}, err
	}
	kind, length, err := Header(r.header)
	if err != nil {
		return Frame{}, err
	}
	r.buffer = slices.Grow(r.buffer[:0], length)[:length] // most streams are short
	if _, err := io.ReadFull(r.r, r.buffer); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return Frame{}, err
	}
	return Frame{Kind: kind, Payload: r.buffer}, nil
}

// Header returns what a frame's first bytes say. ErrFrame when they are no frame's.
func Header(h [HeaderSize]byte) (kind Kind, length int, err error) {
	kind = Kind(h[0])
	if kind < Stdin || kind > lastKind {
		return 0, 0, fmt.Errorf("%w: kind %d", ErrFrame, kind)
	}
	n := binary.BigEndian.Uint32(h[1:])
	if n > MaxPayload {
		return 0, 0, fmt.Errorf("%w: payload of %d bytes", ErrFrame, n)
	}
	return kind, int(n), nil
}

// Append appends a frame to b. The payload must be at most MaxPayload bytes.
func Append(b []byte, kind Kind, payload []byte) []byte {
	b = append(b, byte(kind))
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	return append(b, payload...)
}

// putHeader writes what is before a payload of n bytes.
func putHeader(b []byte, kind Kind, n int) {
	b[0] = byte(kind)
	binary.BigEndian.PutUint32(b[1:], uint32(n))
}

// AppendAck appends an acknowledgement.
func AppendAck(b []byte, kind Kind, offset uint64) []byte {
	return Append(b, kind, binary.BigEndian.AppendUint64(nil, offset))
}

// AppendIncoming appends the number of a connection that has come.
func AppendIncoming(b []byte, number uint64) []byte {
	return Append(b, Incoming, binary.BigEndian.AppendUint64(nil, number))
}

// AppendResize appends a resize.
func AppendResize(b []byte, size TTY) []byte {
	return Append(b, Resize, binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, size.Rows), size.Cols))
}

// Size returns the size of a resize.
func (f Frame) Size() (TTY, error) {
	if len(f.Payload) != 4 {
		return TTY{}, fmt.Errorf("%w: size of %d bytes", ErrFrame, len(f.Payload))
	}
	return TTY{Rows: binary.BigEndian.Uint16(f.Payload), Cols: binary.BigEndian.Uint16(f.Payload[2:])}, nil
}

// Ack returns the offset of an acknowledgement.
func (f Frame) Ack() (uint64, error) { return f.number("acknowledgement") }

// Number returns the number of a connection that has come.
func (f Frame) Number() (uint64, error) { return f.number("connection's number") }

func (f Frame) number(what string) (uint64, error) {
	if len(f.Payload) != 8 {
		return 0, fmt.Errorf("%w: %s of %d bytes", ErrFrame, what, len(f.Payload))
	}
	return binary.BigEndian.Uint64(f.Payload), nil
}
