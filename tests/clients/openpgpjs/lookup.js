// What openpgp.js's own clients get: lookup.js <HKP server> <address that is known> <one that is not> <key ID>
const HKP = require('@openpgp/hkp-client');
const WKD = require('@openpgp/wkd-client');

async function main(server, known, unknown, keyId) {
  const hkp = new HKP(server);
  const wkd = new WKD();
  const got = {
    byAddress: await hkp.lookup({ query: known }),
    byKeyId: await hkp.lookup({ keyId }),
    nobody: (await hkp.lookup({ query: unknown })) || null,
    directory: Buffer.from(await wkd.lookup({ email: known })).toString('hex'),
    directoryOfNobody: await wkd.lookup({ email: unknown }).catch((error) => error.message),
    submitted: (await hkp.upload('-----BEGIN PGP PUBLIC KEY BLOCK-----')).status,
  };
  console.log(JSON.stringify(got));
}

main(...process.argv.slice(2));
