package wire

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// ahead is how much a DataReader reads at once where as much is there, in bytes: more than a socket holds, so that who writes to it is woken once for all, and fills it again while what
// was read is used.
const ahead = 256 << 10

// DataWriter writes a stream as frames Data. The connection is what holds it back: nothing is acknowledged, and nothing repeated.
type DataWriter struct {
	w      io.Writer
	buffer []byte
	err    error
}

// NewDataWriter returns a DataWriter to w.
func NewDataWriter(w io.Writer) *DataWriter { return &DataWriter{w: w} }

// Write writes p in as many frames as it takes.
func (d *DataWriter) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 && d.err == nil {
		part := p[:min(len(p), MaxPayload)]
		d.frame(Data, part)
		if d.err == nil {
			p, written = p[len(part):], written+len(part)
		}
	}
	return written, d.err
}

// SendFile writes the next n bytes of a regular file, within the kernel where that can be. io.ErrUnexpectedEOF when the file has fewer: then zeros end the frame that was begun.
func (d *DataWriter) SendFile(f *os.File, n int64) (sent int64, err error) {
	for sent < n && d.err == nil && err == nil {
		var moved int
		moved, err = d.sendPart(f, int(min(n-sent, MaxPayload)))
		sent += int64(moved)
	}
	if err == nil {
		err = d.err
	}
	return sent, err
}

// sendPart writes one frame of a file's content.
func (d *DataWriter) sendPart(f *os.File, n int) (sent int, err error) {
	d.buffer = slices.Grow(d.buffer[:0], HeaderSize+MaxPayload)[:HeaderSize+n]
	putHeader(d.buffer, Data, n)
	if _, d.err = d.w.Write(d.buffer[:HeaderSize]); d.err != nil {
		return 0, nil
	}
	if sent, d.err = sendFile(d.w, f, n); d.err != nil || sent == n {
		return sent, nil
	}
	rest := d.buffer[HeaderSize+sent:]
	got, err := io.ReadFull(f, rest)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	clear(rest[got:])
	_, d.err = d.w.Write(rest)
	return sent + got, err
}

// End writes a frame that says that all was written, or how it ended.
func (d *DataWriter) End(kind Kind, payload []byte) error {
	d.frame(kind, payload)
	return d.err
}

// Err returns the error of the connection.
func (d *DataWriter) Err() error { return d.err }

func (d *DataWriter) frame(kind Kind, payload []byte) {
	if d.err == nil {
		d.buffer = Append(d.buffer[:0], kind, payload)
		_, d.err = d.w.Write(d.buffer)
	}
}

// DataReader reads what a DataWriter wrote.
type DataReader struct {
	r    io.Reader
	end  Kind
	head [HeaderSize]byte
	left int // bytes of the present frame
	last []byte
	err  error
}

// NewDataReader returns a DataReader of r, of which it may read more than the stream. That ends with a frame of that kind.
func NewDataReader(r io.Reader, end Kind) *DataReader {
	return &DataReader{r: bufio.NewReaderSize(r, ahead), end: end}
}

// Read returns io.EOF after the frame of the end, io.ErrUnexpectedEOF when the connection ended before, and ErrFrame for what is no data. A frame's data is waited for together.
func (d *DataReader) Read(p []byte) (int, error) {
	for d.left == 0 && d.err == nil {
		d.next()
	}
	if d.err != nil || len(p) == 0 {
		return 0, d.err
	}
	n, err := io.ReadFull(d.r, p[:min(len(p), d.left)])
	d.left -= n
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	d.err = err
	return n, err
}

// next reads what is before a frame's data, or all of the last frame.
func (d *DataReader) next() {
	kind, length, err := d.header()
	switch {
	case err != nil:
		d.err = err
	case kind == Data:
		d.left = length
	case kind == d.end:
		d.last = make([]byte, length)
		if _, d.err = io.ReadFull(d.r, d.last); d.err == nil {
			d.err = io.EOF
		} else if d.err == io.EOF {
			d.err = io.ErrUnexpectedEOF
		}
	default:
		d.err = fmt.Errorf("%w: kind %d among data", ErrFrame, kind)
	}
}

func (d *DataReader) header() (Kind, int, error) {
	if _, err := io.ReadFull(d.r, d.head[:]); err == io.EOF {
		return 0, 0, io.ErrUnexpectedEOF
	} else if err != nil {
		return 0, 0, err
	}
	return Header(d.head)
}

// Last returns the payload of the end, once Read has returned io.EOF.
func (d *DataReader) Last() []byte { return d.last }
