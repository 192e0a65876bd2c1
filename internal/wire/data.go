package wire

import (
	"fmt"
	"io"
)

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
	frames *Reader
	end    Kind
	rest   []byte
	err    error
}

// NewDataReader returns a DataReader of r, which should be buffered. The stream ends with a frame of that kind.
func NewDataReader(r io.Reader, end Kind) *DataReader {
	return &DataReader{frames: NewReader(r), end: end}
}

// Read returns io.EOF after the frame of the end, io.ErrUnexpectedEOF when the connection ended before, and ErrFrame for what is no data.
func (d *DataReader) Read(p []byte) (int, error) {
	for len(d.rest) == 0 && d.err == nil {
		d.next()
	}
	if d.err != nil {
		return 0, d.err
	}
	n := copy(p, d.rest)
	d.rest = d.rest[n:]
	return n, nil
}

func (d *DataReader) next() {
	frame, err := d.frames.Read()
	switch {
	case err == io.EOF:
		d.err = io.ErrUnexpectedEOF
	case err != nil:
		d.err = err
	case frame.Kind == d.end:
		d.rest, d.err = frame.Payload, io.EOF
	case frame.Kind == Data:
		d.rest = frame.Payload
	default:
		d.err = fmt.Errorf("%w: kind %d among data", ErrFrame, frame.Kind)
	}
}

// Last returns the payload of the end, once Read has returned io.EOF.
func (d *DataReader) Last() []byte { return d.rest }
