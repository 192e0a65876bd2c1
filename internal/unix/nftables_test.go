//go:build linux

package unix

import (
	"encoding/binary"
	"errors"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// answer is a netlink message.
func answer(kind uint16, data ...byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(data)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	return append(append(b, make([]byte, unix.NLMSG_HDRLEN-len(b))...), data...)
}

// attribute is one of a message.
func attribute(kind uint16, data ...byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(unix.NLA_HDRLEN+len(data)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), data...)
	return append(b, make([]byte, -len(b)&3)...)
}

func TestGenerationIn(t *testing.T) {
	const generation = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWGEN
	head := []byte{0, 0, 0, 0}
	id, name := attribute(unix.NFTA_GEN_ID, 0, 0, 1, 2), attribute(unix.NFTA_GEN_PROC_NAME, 'n', 'f', 't', 0, 'x')
	if got, err := generationIn(answer(generation, append(append(head, name...), id...)...)); err != nil || got != 258 {
		t.Errorf("%d, %v; want 258", got, err)
	}
	refused := binary.NativeEndian.AppendUint32(nil, uint32(0xffffffff)) // -EPERM
	if _, err := generationIn(answer(unix.NLMSG_ERROR, refused...)); !errors.Is(err, syscall.EPERM) {
		t.Errorf("%v, want EPERM", err)
	}
	for what, text := range map[string][]byte{
		"nothing":                      nil,
		"a header that is cut":         answer(generation)[:10],
		"another message":              answer(unix.NLMSG_DONE, id...),
		"no attributes":                answer(generation, head...),
		"no head":                      answer(generation, 1, 2),
		"another attribute":            answer(generation, append(head, name...)...),
		"an attribute of nothing":      answer(generation, append(head, 0, 0, 0, 0, 0, 0, 0, 0)...),
		"an attribute that is cut":     answer(generation, append(head, id[:6]...)...),
		"a generation of another size": answer(generation, append(head, attribute(unix.NFTA_GEN_ID, 1, 2)...)...),
		"an error without its number":  answer(unix.NLMSG_ERROR, 1),
	} {
		if got, err := generationIn(text); err == nil {
			t.Errorf("%s: %d", what, got)
		}
	}
}
