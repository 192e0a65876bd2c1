package wire

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func TestDataComesAsItWas(t *testing.T) {
	for _, size := range []int{0, 1, MaxPayload - 1, MaxPayload, MaxPayload + 1, 3*MaxPayload + 7} {
		content := bytes.Repeat([]byte("data"), size/4+1)[:size]
		var b bytes.Buffer
		w := NewDataWriter(&b)
		if n, err := w.Write(content); n != size || err != nil {
			t.Fatal(n, err)
		}
		if err := w.End(Copied, []byte("end")); err != nil {
			t.Fatal(err)
		}
		r := NewDataReader(iotest.OneByteReader(bytes.NewReader(b.Bytes())), Copied)
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, content) || string(r.Last()) != "end" {
			t.Errorf("%d bytes became %d, %q, %v", size, len(got), r.Last(), err)
		}
	}
}

func TestDataThatIsNone(t *testing.T) {
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"nothing":                {nil, io.ErrUnexpectedEOF},
		"no end":                 {Append(nil, Data, []byte("data")), io.ErrUnexpectedEOF},
		"a part of a frame":      {Append(nil, Data, []byte("data"))[:7], io.ErrUnexpectedEOF},
		"the other side's end":   {Append(nil, Copied, nil), ErrFrame},
		"a frame of a process's": {Append(nil, Stdin, nil), ErrFrame},
		"no frame":               {[]byte{0xff, 0, 0, 0, 0}, ErrFrame},
	} {
		r := NewDataReader(bytes.NewReader(c.b), DataEnd)
		if _, err := io.ReadAll(r); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if _, err := r.Read(make([]byte, 1)); !errors.Is(err, c.want) {
			t.Errorf("%s: again: %v", name, err)
		}
	}
}

func TestADataWriterEndsWithItsConnection(t *testing.T) {
	r, w := io.Pipe()
	r.CloseWithError(io.ErrNoProgress)
	d := NewDataWriter(w)
	if n, err := d.Write([]byte("data")); n != 0 || err != io.ErrNoProgress || d.Err() != err || d.End(DataEnd, nil) != err {
		t.Errorf("%d, %v, %v", n, err, d.Err())
	}
}
