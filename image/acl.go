package image

import (
	"encoding/binary"
	"errors"
)

// Versions of an access control list: as system calls give it (include/uapi/linux/posix_acl_xattr.h), and as ext4 keeps it (fs/ext4/acl.h).
const (
	aclVersionXattr = 2
	aclVersionDisk  = 1
)

// Tags of entries that name a user or a group (include/uapi/linux/posix_acl.h).
const (
	aclUser  = 0x02
	aclGroup = 0x08
)

// diskACL returns an access control list as ext4 keeps it: without the ids of entries that name nobody. What a file system's attribute has, and so a tar, is not that,
// and Linux refuses all access to a file with it.
func diskACL(xattr string) (string, error) {
	in := []byte(xattr)
	if len(in) < 4 || len(in)%8 != 4 || binary.LittleEndian.Uint32(in) != aclVersionXattr {
		return "", errors.New("it is no access control list of version 2")
	}
	out := binary.LittleEndian.AppendUint32(nil, aclVersionDisk)
	for entry := in[4:]; len(entry) > 0; entry = entry[8:] {
		switch binary.LittleEndian.Uint16(entry) {
		case aclUser, aclGroup:
			out = append(out, entry[:8]...)
		default:
			out = append(out, entry[:4]...)
		}
	}
	return string(out), nil
}
