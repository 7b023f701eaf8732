/* Memory as x86 has it (TSO), shared by the models: every process NP has a FIFO store buffer of KB entries; a load takes
 * the newest own entry of that address, else memory; a full fence waits until the own buffer is empty. The buffers drain by the
 * process `Memory`, whenever it likes: so also those of a frozen process and (before anybody may find it dead) of a dead one.
 * The including model defines NV (addresses), NP (processes) and KB (2 or 3).
 */
byte mem[NV];
byte bufa[NP * KB];
byte bufv[NP * KB];
byte bufn[NP];

#define AT(p, i) ((p) * KB + (i))
#define LD1(p, a) ((bufn[p] > 0 && bufa[AT(p, 0)] == (a)) -> bufv[AT(p, 0)] : mem[a])
#define LD2(p, a) ((bufn[p] > 1 && bufa[AT(p, 1)] == (a)) -> bufv[AT(p, 1)] : LD1(p, a))
#if KB == 3
#define LD(p, a) ((bufn[p] > 2 && bufa[AT(p, 2)] == (a)) -> bufv[AT(p, 2)] : LD2(p, a))
#else
#define LD(p, a) LD2(p, a)
#endif

#define FENCE(p) (bufn[p] == 0)

#define STORE(p, a, v) \
    d_step { bufn[p] < KB -> bufa[AT(p, bufn[p])] = (a); bufv[AT(p, bufn[p])] = (v); bufn[p] = bufn[p] + 1 }

#if KB == 3
#define SHIFT(p) bufa[AT(p, 1)] = bufa[AT(p, 2)]; bufv[AT(p, 1)] = bufv[AT(p, 2)];
#else
#define SHIFT(p)
#endif

#define DRAINS(p) \
    d_step { bufn[p] > 0 -> mem[bufa[AT(p, 0)]] = bufv[AT(p, 0)]; \
        bufa[AT(p, 0)] = bufa[AT(p, 1)]; bufv[AT(p, 0)] = bufv[AT(p, 1)]; SHIFT(p) \
        bufn[p] = bufn[p] - 1; bufa[AT(p, bufn[p])] = 0; bufv[AT(p, bufn[p])] = 0 }
